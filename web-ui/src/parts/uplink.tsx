// The last sixty seconds of what left the house, and the rate right now.

import type { Status } from "../api";
import { megabits, rate } from "../format";
import { useI18n } from "../i18n";
import { Graph } from "./graph";

export function UplinkCard({ status }: { status: Status }) {
  const { t, locale } = useI18n();
  const now = status.egress_bytes_per_second;
  // When nothing may leave, the sentence above says so; the graph keeps its scale.
  const limit = status.egress_bytes_per_second_allowed || status.egress_bytes_per_second_max;
  const label = t("uplink_graph", {
    rate: rate(now, locale),
    peak: rate(Math.max(0, ...status.egress_history), locale),
    limit: rate(limit, locale),
  });
  return (
    <section class="card uplink" aria-labelledby="uplink-title">
      <h2 id="uplink-title">{t("uplink")}</h2>
      <p class="big">
        <span data-testid="rate">{megabits(now, locale)}</span> <small>Mbit/s</small>
        <small class="aside">{t("of_limit", { limit: rate(limit, locale) })}</small>
      </p>
      <Graph history={status.egress_history} limit={limit} label={label} />
    </section>
  );
}
