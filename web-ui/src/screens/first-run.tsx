// The first minute: prove that the device is yours with the one-time code, and set a password.

import { useState } from "preact/hooks";
import { api, type Session } from "../api";
import { useI18n } from "../i18n";
import { OwnerName, PasswordField, useEntry } from "../parts/password";

/** As the device checks it (PASSWORD_CHARS_MIN in src/device/admin/mod.rs). */
const PASSWORD_CHARS_MIN = 10;

export function FirstRun({ onSession }: { onSession: (session: Session) => void }) {
  const { t } = useI18n();
  const [code, setCode] = useState(codeFromAddress);
  const [password, setPassword] = useState("");
  const { busy, wait, problem, enter } = useEntry(onSession);
  const missing = PASSWORD_CHARS_MIN - [...password].length;
  return (
    <form
      class="card form"
      onSubmit={(event) => {
        event.preventDefault();
        enter(() => api.setUp(code.trim(), password));
      }}
    >
      <h1>{t("setup_title")}</h1>
      <p class="quiet">{t("setup_intro")}</p>
      <div class="field">
        <label for="code">{t("setup_code")}</label>
        <input
          id="code"
          class="code"
          autocomplete="one-time-code"
          autocapitalize="characters"
          spellcheck={false}
          required
          value={code}
          onInput={(event) => setCode(event.currentTarget.value)}
        />
      </div>
      <details>
        <summary>{t("setup_code_where")}</summary>
        <p>{t("setup_code_where_text")}</p>
      </details>
      <OwnerName />
      <PasswordField
        label={t("new_password")}
        value={password}
        autocomplete="new-password"
        describedBy="password-hint"
        onValue={setPassword}
      />
      <p id="password-hint" class="hint">
        {password === ""
          ? t("password_hint")
          : missing > 0
            ? t("password_short", { n: missing })
            : t("password_ok")}
      </p>
      <p class="problem" role="alert">
        {problem}
      </p>
      <button
        type="submit"
        class="primary"
        disabled={busy || wait > 0 || code.trim() === "" || missing > 0}
      >
        {busy ? t("working") : t("setup_submit")}
      </button>
    </form>
  );
}

/** A link or QR code may carry the code as `#setup=CODE`: the part of an address that stays here. */
function codeFromAddress(): string {
  const code = new URLSearchParams(location.hash.slice(1)).get("setup") ?? "";
  if (code !== "") history.replaceState(null, "", location.pathname);
  return code;
}
