// Three ways to stop, one way back, and the time that is left.

import { useState } from "preact/hooks";
import type { Pause, PauseRequest } from "../api";
import { countdown } from "../format";
import { useI18n } from "../i18n";
import { useSecondsLeft } from "./state";

interface Props {
  pause: Pause;
  receivedAt: number;
  onPause: (pause: PauseRequest) => Promise<void>;
}

export function PauseCard({ pause, receivedAt, onPause }: Props) {
  const { t } = useI18n();
  const [busy, setBusy] = useState(false);
  const left = useSecondsLeft(pause, receivedAt);
  const ask = (request: PauseRequest) => {
    setBusy(true);
    onPause(request).finally(() => setBusy(false));
  };
  const choice = (label: string, request: PauseRequest) => (
    <button type="button" disabled={busy} onClick={() => ask(request)}>
      {label}
    </button>
  );
  return (
    <section class="card pause" aria-labelledby="pause-title">
      <h2 id="pause-title">{t("pause")}</h2>
      {pause.pause === "off" ? (
        <>
          <div class="choices">
            {choice(t("pause_15_min"), { pause: "for", seconds: 15 * 60 })}
            {choice(t("pause_1_h"), { pause: "for", seconds: 60 * 60 })}
            {choice(t("pause_until_resumed"), { pause: "until_resumed" })}
          </div>
          <p class="hint">{t("pause_hint")}</p>
        </>
      ) : (
        <div class="paused">
          {left === null ? (
            <p>{t("paused_until_resumed")}</p>
          ) : (
            <p>
              {t("resumes_in")} <strong class="countdown">{countdown(left)}</strong>
            </p>
          )}
          <button
            type="button"
            class="primary"
            disabled={busy}
            onClick={() => ask({ pause: "off" })}
          >
            {t("resume")}
          </button>
        </div>
      )}
    </section>
  );
}
