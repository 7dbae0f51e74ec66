// The owner comes back.

import { useState } from "preact/hooks";
import { api, type Session } from "../api";
import { useI18n } from "../i18n";
import { OwnerName, PasswordField, useEntry } from "../parts/password";

export function Login({ onSession }: { onSession: (session: Session) => void }) {
  const { t } = useI18n();
  const [password, setPassword] = useState("");
  const { busy, wait, problem, enter } = useEntry(onSession);
  return (
    <form
      class="card form"
      onSubmit={(event) => {
        event.preventDefault();
        enter(() => api.logIn(password));
      }}
    >
      <h1>{t("login_title")}</h1>
      <p class="quiet">{t("login_intro")}</p>
      <OwnerName />
      <PasswordField
        label={t("password")}
        value={password}
        autocomplete="current-password"
        onValue={setPassword}
      />
      <p class="problem" role="alert">
        {problem}
      </p>
      <button type="submit" class="primary" disabled={busy || wait > 0 || password === ""}>
        {busy ? t("working") : t("login_submit")}
      </button>
      <details>
        <summary>{t("login_forgot")}</summary>
        <p>{t("login_forgot_text")}</p>
      </details>
    </form>
  );
}
