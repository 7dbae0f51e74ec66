// How the device stands with the operator: joined or not, which list, when they last spoke.

import type { Hub } from "../api";
import { ago, bytes } from "../format";
import { useI18n, type Key } from "../i18n";
import { useNow } from "../live";

export function HubCard({ hub }: { hub: Hub }) {
  const { t, locale } = useI18n();
  useNow(); // "2 minutes ago" must not stand still.
  const contact =
    hub.last_contact === null ? t("hub_never") : ago(hub.last_contact, Date.now() / 1000, locale);
  return (
    <section class="card hub" aria-labelledby="hub-title">
      <div class="title-line">
        <h2 id="hub-title">{t("hub")}</h2>
        <span class={`badge ${badge(hub).colour}`} data-testid="hub-state">
          {t(badge(hub).word)}
        </span>
      </div>
      {!hub.enrolled && <p>{t("hub_not_enrolled_text")}</p>}
      {hub.problem && (
        <p class="problem" lang="en">
          {hub.problem}
        </p>
      )}
      <dl class="facts">
        <div>
          <dt>{t("hub_contact")}</dt>
          <dd>{contact}</dd>
        </div>
        <div>
          <dt>{t("hub_list")}</dt>
          <dd>
            {hub.list_epoch === null
              ? t("hub_no_list")
              : t("hub_list_epoch", { epoch: hub.list_epoch })}
          </dd>
        </div>
        <div>
          <dt>{t("hub_reported")}</dt>
          <dd>{bytes(hub.reported_bytes, locale)}</dd>
        </div>
        <div>
          <dt>{t("hub_address")}</dt>
          <dd class="address">{host(hub.url)}</dd>
        </div>
      </dl>
      {hub.reports_pending > 0 && (
        <p class="hint">{t("hub_reports_pending", { n: hub.reports_pending })}</p>
      )}
    </section>
  );
}

function badge(hub: Hub): { word: Key; colour: string } {
  if (hub.problem) return { word: "hub_trouble", colour: "state-attention" };
  if (!hub.enrolled) return { word: "hub_not_enrolled", colour: "state-paused" };
  if (hub.last_contact === null) return { word: "hub_never", colour: "state-empty" };
  return { word: "hub_connected", colour: "state-serving" };
}

function host(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}
