// The one screen: how it goes, what it earned, what leaves the house, and the two things to change.

import { useState } from "preact/hooks";
import { api, type ApiFailure, type Session } from "../api";
import { failureText, useI18n } from "../i18n";
import { useLive } from "../live";
import { CacheCard } from "../parts/cache";
import { ConnectionLost } from "../parts/connection";
import { EarningsCard } from "../parts/earnings";
import { Header } from "../parts/header";
import { HubCard } from "../parts/hub";
import { LimitCard } from "../parts/limit";
import { PauseCard } from "../parts/pause";
import { StateSentence } from "../parts/state";
import { UplinkCard } from "../parts/uplink";

interface Props {
  session: Session;
  onSession: (session: Session) => void;
  onLanguage: () => void;
}

export function Home({ session, onSession, onLanguage }: Props) {
  const words = useI18n();
  const { t } = words;
  const loggedOut = () => onSession({ ...session, logged_in: false });
  const { status, receivedAt, lost, accept, retryNow } = useLive(loggedOut);
  const [failure, setFailure] = useState<ApiFailure | null>(null);

  const failed = (said: ApiFailure) => {
    if (said.code === "not_logged_in") loggedOut();
    else setFailure(said);
  };
  /** Sends a wish and shows what the device made of it. */
  const wish = (request: Promise<Parameters<typeof accept>[0]>): Promise<void> => {
    setFailure(null);
    return request.then(accept, failed);
  };

  return (
    <>
      <Header live={status ? { status, receivedAt } : undefined} onLanguage={onLanguage} />
      {lost && <ConnectionLost retryAt={lost.retryAt} onRetry={retryNow} />}
      <main>
        {failure && (
          <p class="banner problem" role="alert">
            {failureText(words, failure)}
          </p>
        )}
        {status ? (
          <div class="home">
            <StateSentence status={status} receivedAt={receivedAt} />
            <PauseCard
              pause={status.pause}
              receivedAt={receivedAt}
              onPause={(pause) => wish(api.setPause(pause))}
            />
            <EarningsCard earnings={status.earnings} />
            <UplinkCard status={status} />
            <LimitCard
              confirmed={status.egress_bytes_per_second_max}
              onLimit={(limit) => wish(api.setLimit(limit))}
            />
            <HubCard hub={status.hub} />
            <CacheCard cache={status.cache} />
          </div>
        ) : (
          <p class="quiet" role="status">
            {t("loading")}
          </p>
        )}
        <footer>
          <span>{status && t("version", { version: status.version })}</span>
          <button
            type="button"
            class="plain"
            onClick={() => api.logOut().then(onSession, failed)}
          >
            {t("log_out")}
          </button>
        </footer>
      </main>
    </>
  );
}
