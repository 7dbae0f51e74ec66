// What it earned: one big number for today and for the month, and under each how much of it is the
// operator's signed word and how much our own estimate.

import type { Earnings } from "../api";
import { bytes, money, moneyDecimals, shownMicros } from "../format";
import { useI18n } from "../i18n";

export function EarningsCard({ earnings }: { earnings: Earnings }) {
  const { t } = useI18n();
  const e = earnings;
  return (
    <section class="card earnings" aria-labelledby="earnings-title">
      <h2 id="earnings-title">{t("earnings")}</h2>
      <div class="periods">
        <Period
          title={t("today")}
          testid="today"
          currency={e.currency}
          settled={e.today_settled}
          pending={e.today_pending}
          sent={e.today_bytes}
        />
        <Period
          title={t("this_month")}
          testid="month"
          currency={e.currency}
          settled={e.month_settled}
          pending={e.month_pending}
          sent={e.month_bytes}
        />
      </div>
      <p class="hint">{t("earnings_note")}</p>
    </section>
  );
}

interface PeriodProps {
  title: string;
  testid: string;
  currency: string;
  settled: number;
  pending: number;
  sent: number;
}

function Period({ title, testid, currency, settled, pending, sent }: PeriodProps) {
  const { t, locale } = useI18n();
  const total = settled + pending;
  const decimals = moneyDecimals(total);
  const amount = (micros: number) => money(micros, currency, locale, decimals);
  // Rounded so that the two lines add up to the number above them; the estimate takes the rest.
  const rest = shownMicros(total, decimals) - shownMicros(settled, decimals);
  return (
    <div data-testid={testid}>
      <h3>{title}</h3>
      <p class="big">{amount(total)}</p>
      <dl>
        <div>
          <dt>{t("settled")}</dt>
          <dd>{amount(settled)}</dd>
        </div>
        <div>
          <dt>{t("pending")}</dt>
          <dd>{amount(rest)}</dd>
        </div>
        <div>
          <dt>{t("sent")}</dt>
          <dd>{bytes(sent, locale)}</dd>
        </div>
      </dl>
    </div>
  );
}
