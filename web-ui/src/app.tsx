// Which screen, and in which language: first run, login or home.

import { useEffect, useMemo, useState } from "preact/hooks";
import { api, ApiFailure, type Session } from "./api";
import { chooseLanguage, i18n, I18nContext, storedLanguage, storeLanguage } from "./i18n";
import { Header } from "./parts/header";
import { Unreachable } from "./parts/connection";
import { FirstRun } from "./screens/first-run";
import { Home } from "./screens/home";
import { Login } from "./screens/login";

export function App() {
  const [language, setLanguage] = useState(() =>
    chooseLanguage(storedLanguage(), navigator.languages),
  );
  const words = useMemo(() => i18n(language), [language]);
  const [session, setSession] = useState<Session | null>(null);
  const [failure, setFailure] = useState<ApiFailure | null>(null);

  const ask = () => {
    setFailure(null);
    api.session().then(setSession, setFailure);
  };
  useEffect(ask, []);
  useEffect(() => {
    document.documentElement.lang = words.locale;
  }, [words]);

  const switchLanguage = () => {
    const next = language === "en" ? "zh" : "en";
    storeLanguage(next);
    setLanguage(next);
  };

  return (
    <I18nContext.Provider value={words}>
      {session?.logged_in ? (
        <Home session={session} onSession={setSession} onLanguage={switchLanguage} />
      ) : (
        <>
          <Header onLanguage={switchLanguage} />
          <main class="narrow">
            {failure ? (
              <Unreachable failure={failure} onRetry={ask} />
            ) : !session ? (
              <p class="quiet" role="status">
                {words.t("loading")}
              </p>
            ) : session.password_set ? (
              <Login onSession={setSession} />
            ) : (
              <FirstRun onSession={setSession} />
            )}
          </main>
        </>
      )}
    </I18nContext.Provider>
  );
}
