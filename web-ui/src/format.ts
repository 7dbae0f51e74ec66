// Numbers as people read them. Takes the locale as an argument and reads no clock.

/** Decimal units, as network plans and the operator's prices use them. */
const SIZE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

export function bytes(value: number, locale: string): string {
  let unit = 0;
  let scaled = value;
  while (scaled >= 999.5 && unit < SIZE_UNITS.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : 1;
  return `${number(scaled, locale, digits)} ${SIZE_UNITS[unit]}`;
}

/** Bytes per second as Mbit/s, the number on the household's contract. */
export function rate(bytesPerSecond: number, locale: string): string {
  return `${megabits(bytesPerSecond, locale)} Mbit/s`;
}

export function megabits(bytesPerSecond: number, locale: string): string {
  const mbit = (bytesPerSecond * 8) / 1_000_000;
  if (mbit === 0) return "0";
  if (mbit < 0.01) return `< ${number(0.01, locale, 2)}`;
  return number(mbit, locale, mbit < 1 ? 2 : mbit < 99.95 ? 1 : 0);
}

/** Two decimals, and for small sums as many as show three digits of it. */
export function moneyDecimals(micros: number): number {
  if (micros === 0 || micros >= 1_000_000) return 2;
  return Math.min(6, Math.max(2, 9 - String(Math.floor(micros)).length));
}

/** Millionths of `currency`, rounded down: the page never shows more than was earned. */
export function money(micros: number, currency: string, locale: string, decimals = 2): string {
  const value = shownMicros(micros, decimals) / 1_000_000;
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  try {
    const style = { style: "currency", currency, currencyDisplay: "narrowSymbol" } as const;
    return new Intl.NumberFormat(locale, { ...style, ...digits }).format(value);
  } catch {
    // An operator's own unit ("credits") is not a currency code.
    return `${new Intl.NumberFormat(locale, digits).format(value)} ${currency}`;
  }
}

/** What is left of an amount when it is shown with so many decimals. */
export function shownMicros(micros: number, decimals: number): number {
  const step = 10 ** (6 - decimals);
  return Math.floor(micros / step) * step;
}

export function percent(part: number, whole: number, locale: string): string {
  // Rounded down: 100 % means complete.
  const share = whole > 0 ? Math.min(1, Math.floor((part / whole) * 100) / 100) : 0;
  return new Intl.NumberFormat(locale, { style: "percent" }).format(share);
}

/** `14:32`, or `1:02:03`. */
export function countdown(seconds: number): string {
  const left = Math.max(0, Math.ceil(seconds));
  const pad = (n: number) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(left / 3600), Math.floor((left % 3600) / 60)];
  const rest = pad(left % 60);
  return hours > 0 ? `${hours}:${pad(minutes)}:${rest}` : `${minutes}:${rest}`;
}

export function date(unixSeconds: number, locale: string): string {
  const style = { year: "numeric", month: "short", day: "numeric" } as const;
  return new Intl.DateTimeFormat(locale, style).format(unixSeconds * 1000);
}

/** “2 minutes ago”. A clock that runs behind the device's says “now”. */
export function ago(unixSeconds: number, nowUnixSeconds: number, locale: string): string {
  const seconds = Math.max(0, nowUnixSeconds - unixSeconds);
  const words = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
  if (seconds < 10) return words.format(0, "second");
  if (seconds < 60) return words.format(-Math.floor(seconds), "second");
  if (seconds < 3600) return words.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86_400) return words.format(-Math.floor(seconds / 3600), "hour");
  return words.format(-Math.floor(seconds / 86_400), "day");
}

function number(value: number, locale: string, digits: number): string {
  const style = { maximumFractionDigits: digits };
  return new Intl.NumberFormat(locale, style).format(value);
}

/** A name from elsewhere, without the invisible characters that turn text around or hide it. */
export function plainName(name: string): string {
  return name.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, "").trim();
}
