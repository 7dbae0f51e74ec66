// Says when the page and the device have lost each other, and offers to try again.

import type { ApiFailure } from "../api";
import { failureText, useI18n } from "../i18n";
import { useNow } from "../live";

interface LostProps {
  retryAt: number;
  onRetry: () => void;
}

export function ConnectionLost({ retryAt, onRetry }: LostProps) {
  const { t } = useI18n();
  const left = Math.ceil((retryAt - useNow()) / 1000);
  return (
    <div class="banner" role="alert">
      <div>
        <strong>{t("lost_title")}</strong>
        {/* The seconds would be read aloud one by one. */}
        <p aria-live="off">{left > 0 ? t("lost_text", { n: left }) : t("lost_trying")}</p>
      </div>
      <button type="button" onClick={onRetry}>
        {t("retry")}
      </button>
    </div>
  );
}

interface UnreachableProps {
  failure: ApiFailure;
  onRetry: () => void;
}

/** Before anything was shown. */
export function Unreachable({ failure, onRetry }: UnreachableProps) {
  const words = useI18n();
  return (
    <section class="card" role="alert">
      <h1>{words.t("lost_title")}</h1>
      <p>{failureText(words, failure)}</p>
      <button type="button" class="primary" onClick={onRetry}>
        {words.t("retry")}
      </button>
    </section>
  );
}
