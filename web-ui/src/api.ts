// Mirrors src/api/admin.rs: the shapes and the requests, nothing else. Amounts are millionths of the
// currency's unit and sizes are bytes, exactly as the device sends them.

export interface Session {
  password_set: boolean;
  logged_in: boolean;
}

export type DeviceState = "serving" | "idle" | "filling" | "empty" | "paused" | "resting" | "attention";

/** The rule in force: of all that apply, the one that allows least. */
export type AllowanceReason =
  | "limit"
  | "paused"
  | "schedule_off"
  | "schedule_reduced"
  | "clock_unset"
  | "daily_cap"
  | "monthly_cap"
  | "asymmetry_slowed"
  | "asymmetry_stopped"
  | "throttled"
  | "auto_line"
  | "auto_household";

export type Pause =
  | { pause: "off" }
  | { pause: "for"; seconds_left: number }
  | { pause: "until_resumed" };

export type PauseRequest =
  | { pause: "off" }
  | { pause: "for"; seconds: number }
  | { pause: "until_resumed" };

export interface Earnings {
  currency: string;
  today_settled: number;
  today_pending: number;
  month_settled: number;
  month_pending: number;
  today_bytes: number;
  month_bytes: number;
}

export type ContentState = "waiting" | "filling" | "serving" | "leaving";

export interface Content {
  infohash: string;
  /** Hostile text: only ever a text node. */
  name: string;
  size_bytes: number;
  held_bytes: number;
  egress_bytes: number;
  lease_end: number;
  state: ContentState;
  filled_by_web_seed_bytes: number;
  filled_by_peer_bytes: number;
  problem: string | null;
  /** By the owner's own rules; ends by itself. */
  waits: string | null;
}

export interface Cache {
  quota_bytes: number;
  used_bytes: number;
  contents: Content[];
}

export interface Hub {
  url: string;
  enrolled: boolean;
  list_epoch: number | null;
  last_contact: number | null;
  reports_pending: number;
  reported_bytes: number;
  problem: string | null;
}

export interface Status {
  version: string;
  state: DeviceState;
  problem: string | null;
  pause: Pause;
  egress_bytes_per_second: number;
  egress_bytes_per_second_max: number;
  /** What may leave right now; never more than the limit. */
  egress_bytes_per_second_allowed: number;
  allowance_reason: AllowanceReason;
  /** What automatic mode believes that the line carries, once it knows. */
  line_bytes_per_second: number | null;
  /** Oldest first, one value a second, 60 at most. */
  egress_history: number[];
  lan_egress_bytes_per_second: number;
  peers_connected: number;
  earnings: Earnings;
  cache: Cache;
  hub: Hub;
}

/** The device said no, or did not answer (`unreachable`). */
export class ApiFailure extends Error {
  readonly code: string;
  readonly retryAfterSeconds: number;

  constructor(code: string, message: string, retryAfterSeconds = 0) {
    super(message);
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export const api = {
  session: () => call<Session>("GET", "session"),
  setUp: (setup_code: string, password: string) =>
    call<Session>("POST", "setup", { setup_code, password }),
  logIn: (password: string) => call<Session>("POST", "login", { password }),
  logOut: () => call<Session>("POST", "logout", {}),
  setLimit: (egress_bytes_per_second_max: number) =>
    call<Status>("PUT", "limit", { egress_bytes_per_second_max }),
  setPause: (pause: PauseRequest) => call<Status>("PUT", "pause", pause),
};

export const EVENTS_URL = "/api/v1/events";

/** Hashing a password takes a small router a second or two; nothing takes longer. */
const PATIENCE_MS = 15_000;

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), PATIENCE_MS);
  try {
    const response = await fetch(`/api/v1/${path}`, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: giveUp.signal,
    });
    if (!response.ok) throw await failureOf(response);
    return (await response.json()) as T;
  } catch (error) {
    throw error instanceof ApiFailure ? error : new ApiFailure("unreachable", String(error));
  } finally {
    clearTimeout(timer);
  }
}

async function failureOf(response: Response): Promise<ApiFailure> {
  const said = (await response.json().catch(() => ({}))) as { code?: string; message?: string };
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  return new ApiFailure(said.code ?? "unexpected", said.message ?? String(response.status), seconds);
}
