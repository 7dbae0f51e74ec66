// Which language, and a message in it. English defines the keys; TypeScript holds the others to them.

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { ApiFailure } from "../api";
import { en } from "./en";
import { zh } from "./zh";

export type Key = keyof typeof en;
export type Message = string | { one: string; other: string };
export type Messages = Record<Key, Message>;
export type Language = "en" | "zh";

export const MESSAGES: Record<Language, Messages> = { en, zh };

/** For Intl: dates and numbers as the language's readers write them. */
const LOCALES: Record<Language, string> = { en: "en-GB", zh: "zh-CN" };
const STORED = "larder.language";

export interface I18n {
  language: Language;
  locale: string;
  t: (key: Key, values?: Values) => string;
}

type Values = Record<string, string | number>;

export const I18nContext = createContext<I18n>(i18n("en"));
export const useI18n = (): I18n => useContext(I18nContext);

export function i18n(language: Language): I18n {
  const locale = LOCALES[language];
  return { language, locale, t: (key, values) => text(MESSAGES[language][key], locale, values) };
}

/** Fills `{name}`s in; `n` also chooses between one and other. */
export function text(message: Message, locale: string, values: Values = {}): string {
  const chosen =
    typeof message === "string"
      ? message
      : new Intl.PluralRules(locale).select(Number(values.n)) === "one"
        ? message.one
        : message.other;
  return chosen.replace(/\{(\w+)\}/g, (hole, name: string) => String(values[name] ?? hole));
}

/** The owner's choice, else the first of the browser's languages that the page speaks. */
export function chooseLanguage(stored: string | null, browser: readonly string[]): Language {
  const known = [stored ?? "", ...browser].map((tag) => tag.toLowerCase().split("-")[0]);
  return known.find((tag): tag is Language => tag === "en" || tag === "zh") ?? "en";
}

export function storedLanguage(): string | null {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // Storage is off: the browser's language it is.
  }
}

export function storeLanguage(language: Language): void {
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // Storage is off: the choice lasts as long as the page.
  }
}

/** A failure in the reader's language; the device's own sentence where there is no better. */
export function failureText({ t }: I18n, failure: ApiFailure, secondsLeft?: number): string {
  const key = `fails_${failure.code}`;
  const n = secondsLeft ?? failure.retryAfterSeconds;
  return key in en ? t(key as Key, { n }) : t("fails_other", { message: failure.message });
}
