// The live status: one event stream, watched for silence, reopened with growing pauses, closed while
// nobody looks. It keeps the last known status, so that a lost connection loses nothing on screen.

import { useEffect, useRef, useState } from "preact/hooks";
import { api, ApiFailure, EVENTS_URL, type Status } from "./api";

/** The device speaks at least every 3 s. */
const SILENCE_MS = 10_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000, 15_000] as const;

export interface Live {
  status: Status | null;
  /** `performance.now()` when the status came. */
  receivedAt: number;
  /** When the next try starts, while the connection is lost. */
  lost: { retryAt: number } | null;
  accept: (status: Status) => void;
  retryNow: () => void;
}

export function useLive(onLoggedOut: () => void): Live {
  const [status, setStatus] = useState<{ value: Status; at: number } | null>(null);
  const [lost, setLost] = useState<{ retryAt: number } | null>(null);
  const stream = useRef<Stream | null>(null);
  const accept = (value: Status) => setStatus({ value, at: performance.now() });

  useEffect(() => {
    const opened = new Stream({ status: accept, lost: setLost, loggedOut: onLoggedOut });
    stream.current = opened;
    const look = () => (document.hidden ? opened.close() : opened.open());
    document.addEventListener("visibilitychange", look);
    window.addEventListener("online", opened.open);
    look();
    return () => {
      document.removeEventListener("visibilitychange", look);
      window.removeEventListener("online", opened.open);
      opened.close();
    };
  }, []);

  return {
    status: status?.value ?? null,
    receivedAt: status?.at ?? 0,
    lost,
    accept,
    retryNow: () => stream.current?.open(),
  };
}

interface Listener {
  status: (status: Status) => void;
  lost: (lost: { retryAt: number } | null) => void;
  loggedOut: () => void;
}

class Stream {
  private source: EventSource | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;

  constructor(private readonly listener: Listener) {}

  /** Starts afresh, whatever went on before. */
  open = (): void => {
    this.close();
    const source = new EventSource(EVENTS_URL);
    this.source = source;
    source.addEventListener("status", (event) => {
      this.failures = 0;
      this.listener.lost(null);
      this.listener.status(JSON.parse((event as MessageEvent<string>).data) as Status);
      this.expectMore();
    });
    source.onerror = () => this.fail();
    this.expectMore();
  };

  close(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  private expectMore(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fail(), SILENCE_MS);
  }

  private fail(): void {
    this.close();
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)] ?? 15_000;
    this.failures += 1;
    this.listener.lost({ retryAt: performance.now() + wait });
    this.timer = setTimeout(this.open, wait);
    // An event stream does not tell why it ended: ask whether the login still holds.
    api.session().then(
      (session) => session.logged_in || this.listener.loggedOut(),
      (error: ApiFailure) => console.info(error.message),
    );
  }
}

/** The time, again every second, for countdowns. */
export function useNow(active = true): number {
  const [now, setNow] = useState(() => performance.now());
  useEffect(() => {
    if (!active) return;
    setNow(performance.now());
    const timer = setInterval(() => setNow(performance.now()), 1000);
    return () => clearInterval(timer);
  }, [active]);
  return now;
}
