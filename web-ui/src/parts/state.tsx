// The device's state: a colour and a word in the bar, and the sentence at the top of the page.

import type { Pause, Status } from "../api";
import { countdown, rate } from "../format";
import { useI18n, type Key } from "../i18n";
import { useNow } from "../live";

interface Props {
  status: Status;
  receivedAt: number;
}

export function StatePill({ status, receivedAt }: Props) {
  const { t } = useI18n();
  const left = useSecondsLeft(status.pause, receivedAt);
  return (
    <span class={`pill state-${status.state}`} data-testid="state">
      <i class="dot" aria-hidden="true" />
      {t(`state_${status.state}` as Key)}
      {left !== null && <span class="countdown">{countdown(left)}</span>}
    </span>
  );
}

export function StateSentence({ status, receivedAt }: Props) {
  const { t, locale } = useI18n();
  const left = useSecondsLeft(status.pause, receivedAt);
  const reason = status.allowance_reason;
  const allowed = rate(status.egress_bytes_per_second_allowed, locale);
  const line = status.line_bytes_per_second === null ? null : rate(status.line_bytes_per_second, locale);
  const unknown = line === null && reason.startsWith("auto_");
  return (
    <section class={`card sentence state-${status.state}`} aria-labelledby="state-word">
      <h1 id="state-word">
        <i class="dot" aria-hidden="true" />
        {t(`state_${status.state}` as Key)}
      </h1>
      <p class="says" data-testid="sentence">
        {left !== null
          ? t("says_paused_for", { time: countdown(left) })
          : t(`says_${status.state}` as Key, { n: status.peers_connected })}
      </p>
      {/* Why it is slower than the slider; a pause has said so already. */}
      {reason !== "limit" && reason !== "paused" && (
        <p class="says" data-testid="reason">
          {unknown ? t("reason_auto_line_unknown") : t(`reason_${reason}` as Key, { allowed, line: line ?? "" })}
        </p>
      )}
      {/* The device speaks English; its sentence says what to do. */}
      {status.problem && (
        <p class="problem" lang="en">
          {status.problem}
        </p>
      )}
    </section>
  );
}

/** Counts down between two words from the device; `null` unless a pause has an end. */
export function useSecondsLeft(pause: Pause, receivedAt: number): number | null {
  const timed = pause.pause === "for";
  const now = useNow(timed);
  return timed ? Math.max(0, pause.seconds_left - Math.max(0, now - receivedAt) / 1000) : null;
}
