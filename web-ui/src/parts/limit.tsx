// How much may leave. The slider asks on release; the number shown is always the device's answer.

import { useRef, useState } from "preact/hooks";
import { rate } from "../format";
import { useI18n } from "../i18n";
import { bytesPerSecondAt, stopNearest, STOPS_MBIT } from "../limit-scale";

/** 10 Gbit/s: from here on the device takes it for no limit. */
const NO_LIMIT = 1_250_000_000;

interface Props {
  /** Bytes per second, as the device last said. */
  confirmed: number;
  onLimit: (bytesPerSecond: number) => Promise<void>;
}

export function LimitCard({ confirmed, onLimit }: Props) {
  const { t, locale } = useI18n();
  /** Where the thumb is while it differs from the device. */
  const [wish, setWish] = useState<{ stop: number; sent: boolean } | null>(null);
  const newest = useRef(0);

  const send = (stop: number) => {
    const mine = ++newest.current;
    setWish({ stop, sent: true });
    // Only the last of several answers lets go of the thumb.
    onLimit(bytesPerSecondAt(stop)).finally(() => mine === newest.current && setWish(null));
  };

  const stop = wish?.stop ?? stopNearest(confirmed);
  const last = STOPS_MBIT.length - 1;
  const none = !wish && confirmed >= NO_LIMIT;
  const shown = none ? t("limit_none") : rate(wish ? bytesPerSecondAt(stop) : confirmed, locale);
  const said = none ? "limit_none_confirmed" : !wish ? "limit_confirmed" : wish.sent ? "limit_setting" : "limit_release";
  return (
    <section class="card limit" aria-labelledby="limit-title">
      <h2 id="limit-title">{t("limit")}</h2>
      <label for="limit" class="quiet">
        {t("limit_label")}
      </label>
      <p class="big">{shown}</p>
      <input
        id="limit"
        type="range"
        min={0}
        max={last}
        step={1}
        value={stop}
        aria-valuetext={shown}
        onInput={(event) => setWish({ stop: Number(event.currentTarget.value), sent: false })}
        onChange={(event) => send(Number(event.currentTarget.value))}
      />
      <div class="ends" aria-hidden="true">
        <span>{rate(bytesPerSecondAt(0), locale)}</span>
        <span>{rate(bytesPerSecondAt(last), locale)}</span>
      </div>
      <p class="says" role="status" data-testid="limit-said">
        {t(said, { limit: shown })}
      </p>
      <p class="hint">{t("limit_hint")}</p>
    </section>
  );
}
