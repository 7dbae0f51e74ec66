// A password field that can be looked at, and the form state that setup and login share.

import { useState } from "preact/hooks";
import { ApiFailure, type Session } from "../api";
import { failureText, useI18n } from "../i18n";
import { useNow } from "../live";

interface FieldProps {
  label: string;
  value: string;
  autocomplete: "new-password" | "current-password";
  describedBy?: string;
  onValue: (value: string) => void;
}

export function PasswordField({ label, value, autocomplete, describedBy, onValue }: FieldProps) {
  const { t } = useI18n();
  const [shown, setShown] = useState(false);
  return (
    <div class="field">
      <label for="password">{label}</label>
      <div class="with-button">
        <input
          id="password"
          name="password"
          // The types of Preact take "text" and "password" for two kinds of element.
          type={(shown ? "text" : "password") as "password"}
          autocomplete={autocomplete}
          autocapitalize="none"
          spellcheck={false}
          required
          aria-describedby={describedBy}
          value={value}
          onInput={(event) => onValue(event.currentTarget.value)}
        />
        <button type="button" class="plain" aria-pressed={shown} onClick={() => setShown(!shown)}>
          {shown ? t("hide_password") : t("show_password")}
        </button>
      </div>
    </div>
  );
}

/** Password managers want to know whose password it is. */
export function OwnerName() {
  return (
    <input
      class="off-screen"
      name="username"
      autocomplete="username"
      value="owner"
      readOnly
      tabIndex={-1}
      aria-hidden="true"
    />
  );
}

export interface Entry {
  busy: boolean;
  /** Too many tries: not before this many seconds. */
  wait: number;
  problem: string | null;
  enter: (request: () => Promise<Session>) => void;
}

export function useEntry(onSession: (session: Session) => void): Entry {
  const words = useI18n();
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<{ said: ApiFailure; at: number } | null>(null);
  const retryAfter = failure?.said.retryAfterSeconds ?? 0;
  const now = useNow(retryAfter > 0);
  const wait = failure ? Math.max(0, Math.ceil(retryAfter - (now - failure.at) / 1000)) : 0;
  const over = retryAfter > 0 && wait === 0;

  const enter = (request: () => Promise<Session>) => {
    if (busy || wait > 0) return;
    setBusy(true);
    setFailure(null);
    request()
      .then(onSession, (said: ApiFailure) => setFailure({ said, at: performance.now() }))
      .finally(() => setBusy(false));
  };
  const problem = failure && !over ? failureText(words, failure.said, wait) : null;
  return { busy, wait, problem, enter };
}
