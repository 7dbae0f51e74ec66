// The bar that stays in sight: whose page this is, the device's state in a word, the language.

import { useI18n } from "../i18n";
import { MESSAGES } from "../i18n";
import type { Status } from "../api";
import { StatePill } from "./state";

interface Props {
  live?: { status: Status; receivedAt: number } | undefined;
  onLanguage: () => void;
}

export function Header({ live, onLanguage }: Props) {
  const { t, language } = useI18n();
  const other = language === "en" ? "zh" : "en";
  return (
    <header class="bar">
      <div class="bar-inner">
        <span class="brand">
          <BrandMark />
          Larder
        </span>
        {live && <StatePill status={live.status} receivedAt={live.receivedAt} />}
        <button
          type="button"
          class="plain language"
          lang={other}
          aria-label={`${t("switch_language")}: ${MESSAGES[other].language_name as string}`}
          onClick={onLanguage}
        >
          {MESSAGES[other].language_name as string}
        </button>
      </div>
    </header>
  );
}

function BrandMark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect class="mark-ground" width="32" height="32" rx="8" />
      <path class="mark-letter" d="M9 7h3.6v14.6H23V25H9z" />
      <rect class="mark-letter mark-shelf" x="15.4" y="7" width="7.6" height="3.2" rx="1" />
      <rect class="mark-letter mark-shelf" x="15.4" y="12.4" width="7.6" height="3.2" rx="1" />
    </svg>
  );
}
