// Devices to look at: a good month, the first hour, trouble, hostile names. Times are relative to now,
// so that "2 minutes ago" stays two minutes ago.

const now = () => Math.floor(Date.now() / 1000);
const DAY = 86_400;
const hash = (n) => String(n).padStart(40, "a");

/** A busy but uneven uplink, the same every time. */
function history(peak) {
  return Array.from({ length: 60 }, (_, i) => {
    const wave = 0.72 + 0.2 * Math.sin(i / 5) + 0.08 * Math.sin(i * 1.7);
    return Math.round(peak * wave);
  });
}

function content(n, name, more = {}) {
  return {
    infohash: hash(n),
    name,
    size_bytes: 4_831_838_208,
    held_bytes: 4_831_838_208,
    egress_bytes: 38_204_112_931,
    lease_end: now() + 19 * DAY,
    state: "serving",
    filled_by_web_seed_bytes: 3_221_225_472,
    filled_by_peer_bytes: 1_610_612_736,
    problem: null,
    waits: null,
    ...more,
  };
}

function serving() {
  const egress_history = history(2_300_000);
  return {
    version: "0.1.0",
    state: "serving",
    problem: null,
    pause: { pause: "off" },
    egress_bytes_per_second: egress_history.at(-1),
    egress_bytes_per_second_max: 2_500_000,
    egress_bytes_per_second_allowed: 2_500_000,
    allowance_reason: "limit",
    line_bytes_per_second: null,
    egress_history,
    lan_egress_bytes_per_second: 0,
    peers_connected: 7,
    earnings: {
      currency: "CNY",
      today_settled: 1_830_000,
      today_pending: 412_500,
      month_settled: 38_214_900,
      month_pending: 412_500,
      today_bytes: 22_425_000_000,
      month_bytes: 386_274_000_000,
    },
    cache: {
      quota_bytes: 17_179_869_184,
      used_bytes: 12_348_030_976,
      contents: [
        content(1, "城市漫游 第三季 第08集 1080p"),
        content(2, "debian-13.2.0-arm64-netinst.iso", { size_bytes: 699_400_192, held_bytes: 699_400_192, egress_bytes: 9_812_000_000, filled_by_peer_bytes: 0, filled_by_web_seed_bytes: 699_400_192 }),
        content(3, "A lecture with a rather long title that goes on about many things, and then some more, before it ends at last – part 2 of 5.mkv", { state: "filling", held_bytes: 1_922_000_000, egress_bytes: 0, filled_by_web_seed_bytes: 1_822_000_000, filled_by_peer_bytes: 100_000_000 }),
        content(4, "spring-collection-2026.zip", { state: "leaving", size_bytes: 812_000_000, held_bytes: 812_000_000, lease_end: now() - 600 }),
      ],
    },
    hub: {
      url: "https://hub.example.net/",
      enrolled: true,
      list_epoch: 412,
      last_contact: now() - 130,
      reports_pending: 0,
      reported_bytes: 386_100_000_000,
      problem: null,
    },
  };
}

function first_hour() {
  const base = serving();
  return {
    ...base,
    state: "empty",
    egress_bytes_per_second: 0,
    egress_history: [0, 0, 0, 0, 0],
    lan_egress_bytes_per_second: 0,
    peers_connected: 0,
    earnings: { currency: "CNY", today_settled: 0, today_pending: 0, month_settled: 0, month_pending: 0, today_bytes: 0, month_bytes: 0 },
    cache: { quota_bytes: 17_179_869_184, used_bytes: 0, contents: [] },
    hub: { ...base.hub, list_epoch: null, reported_bytes: 0, last_contact: now() },
  };
}

export const scenarios = {
  first_run: serving,
  login: serving,
  serving,
  first_hour,
  filling: () => {
    const base = first_hour();
    const filling = content(3, "城市漫游 第三季 第08集 1080p", { state: "filling", held_bytes: 1_922_000_000, egress_bytes: 0, filled_by_web_seed_bytes: 1_922_000_000, filled_by_peer_bytes: 0 });
    const waiting = content(4, "城市漫游 第三季 第09集 1080p", { state: "waiting", held_bytes: 0, egress_bytes: 0, filled_by_web_seed_bytes: 0, filled_by_peer_bytes: 0 });
    return { ...base, state: "filling", cache: { ...base.cache, used_bytes: 1_922_000_000, contents: [filling, waiting] }, hub: { ...base.hub, list_epoch: 1 } };
  },
  idle: () => ({ ...serving(), state: "idle", egress_bytes_per_second: 0, egress_history: history(2_300_000).map((v, i) => (i < 20 ? v : 0)), peers_connected: 0 }),
  small_change: () => {
    const base = serving();
    return { ...base, peers_connected: 1, earnings: { ...base.earnings, today_settled: 0, today_pending: 6_710, month_settled: 6_710, month_pending: 6_710, today_bytes: 67_108_864, month_bytes: 134_217_728 } };
  },
  paused_for: () => ({ ...serving(), state: "paused", allowance_reason: "paused", egress_bytes_per_second_allowed: 0, pause: { pause: "for", seconds_left: 872 }, egress_bytes_per_second: 0, egress_history: history(2_300_000).map((v, i) => (i < 45 ? v : 0)), peers_connected: 0 }),
  paused: () => ({ ...serving(), state: "paused", allowance_reason: "paused", egress_bytes_per_second_allowed: 0, pause: { pause: "until_resumed" }, egress_bytes_per_second: 0, egress_history: new Array(60).fill(0), peers_connected: 0 }),
  scheduled: () => ({ ...serving(), allowance_reason: "schedule_reduced", egress_bytes_per_second_allowed: 1_250_000, egress_bytes_per_second: 1_190_000, egress_history: history(1_240_000) }),
  capped: () => ({ ...serving(), state: "resting", allowance_reason: "daily_cap", egress_bytes_per_second_allowed: 0, egress_bytes_per_second: 0, egress_history: history(2_300_000).map((v, i) => (i < 45 ? v : 0)), peers_connected: 0 }),
  throttled: () => ({ ...serving(), state: "attention", allowance_reason: "throttled", egress_bytes_per_second_allowed: 0, egress_bytes_per_second: 0, egress_history: new Array(60).fill(0), peers_connected: 0 }),
  attention: () => {
    const base = serving();
    return {
      ...base,
      state: "attention",
      problem: "The disk is full: free 2.1 GB or lower cache.quota_bytes in larderd.toml.",
      cache: { ...base.cache, contents: base.cache.contents.map((c, i) => (i === 2 ? { ...c, problem: "The web seed answered 503 Service Unavailable; next try in 40 s." } : c)) },
      hub: { ...base.hub, last_contact: now() - 3 * 3600, reports_pending: 12, problem: "The hub at hub.example.net did not answer (connection refused); next try in 4 minutes." },
    };
  },
  not_enrolled: () => {
    const base = first_hour();
    return { ...base, hub: { ...base.hub, enrolled: false, last_contact: null, problem: "The hub does not know the claim code ABCD-EFGH: check hub.claim_code in larderd.toml." } };
  },
  hostile: () => {
    const base = serving();
    const names = [
      '<img src=x onerror="document.title=\'owned\'">',
      "<script>document.title='owned'</script>",
      "\u202Egpj.elif-live\u202C then normal",
      "javascript:alert(1)//" + "很长".repeat(150),
      "   ",
      "Z̸͙̈a̷̹͝l̶̳̊g̵̲̓o̶ " + "W".repeat(200),
    ];
    return { ...base, cache: { ...base.cache, contents: names.map((name, i) => content(10 + i, name)) } };
  },
  many: () => {
    const base = serving();
    return { ...base, cache: { ...base.cache, contents: Array.from({ length: 250 }, (_, i) => content(100 + i, `episode-${i + 1}.mkv`)) } };
  },
};
