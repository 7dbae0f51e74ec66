//! The page's server as its owner and as attackers meet it, one request at a time.

use std::{
    io, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::{HeaderMap, Request, StatusCode, header},
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::{AdminSettings, Backend, Credentials, MAX_STREAMS, router};
use crate::{
    api::admin::{CacheView, Earnings, HubView, PauseRequest, PauseView, State, Status},
    logic::{governor::allowance::Reason, login_guard::FREE_TRIES, units::Micros},
};

const CODE: &str = "ABCD-EFGH";
const PASSWORD: &str = "correct horse battery";
const PHONE: &str = "192.168.1.20:50000";
const HOST: &str = "192.168.1.1:8080";

/// A device of which only the limit and the pause are real.
struct Device {
    status: Mutex<watch::Sender<Status>>,
    writes: AtomicU64,
}

impl Device {
    fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.lock().send_modify(change);
    }

    /// As when the daemon shuts down.
    fn stop(&self) {
        drop(mem::replace(&mut *self.status.lock(), watch::Sender::new(status())));
    }
}

#[async_trait]
impl Backend for Device {
    fn status(&self) -> watch::Receiver<Status> {
        self.status.lock().subscribe()
    }

    async fn set_limit(&self, bytes_per_second: u64) -> Result<Status, String> {
        if bytes_per_second > 1_000_000_000 {
            return Err("this device cannot send that fast".into());
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.change(|s| s.egress_bytes_per_second_max = bytes_per_second);
        Ok(self.status.lock().borrow().clone())
    }
    async fn remove(&self, _: crate::api::admin::RemovalRequest) -> Result<Status, String> {
        Err("nothing is held".into())
    }
    async fn set_pause(&self, request: PauseRequest) -> Result<Status, String> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.change(|s| {
            s.pause = match request {
                PauseRequest::Off => PauseView::Off,
                PauseRequest::For { seconds } => PauseView::For { seconds_left: seconds },
                PauseRequest::UntilResumed => PauseView::UntilResumed,
            }
        });
        Ok(self.status.lock().borrow().clone())
    }
}

#[derive(Default)]
struct InMemory(Mutex<Option<String>>);

impl Credentials for InMemory {
    fn password_hash(&self) -> io::Result<Option<String>> {
        Ok(self.0.lock().clone())
    }

    fn set_password_hash(&self, phc: &str) -> io::Result<()> {
        *self.0.lock() = Some(phc.into());
        Ok(())
    }
}

struct Admin {
    router: Router,
    device: Arc<Device>,
    credentials: Arc<InMemory>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().expect("a code").into()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("text"))
    }

    fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().expect("a cookie").into()
    }
}

impl Admin {
    fn new() -> Admin {
        let device =
            Arc::new(Device { status: Mutex::new(watch::Sender::new(status())), writes: 0.into() });
        let credentials = Arc::new(InMemory::default());
        let settings = AdminSettings {
            hosts: vec!["larder.local".into()],
            setup_code: CODE.into(),
            local_addr: "0.0.0.0:8080".parse().expect("addr"),
        };
        let router = router(settings, device.clone(), credentials.clone());
        Admin { router, device, credentials }
    }

    /// With its owner's session.
    async fn set_up() -> (Admin, String) {
        let admin = Admin::new();
        let answer = admin.post("setup", json!({"setup_code": CODE, "password": PASSWORD})).await;
        assert_eq!(answer.status, StatusCode::OK);
        let cookie = answer.cookie();
        (admin, cookie)
    }

    async fn send_from(&self, source: &str, mut request: Request<Body>) -> Answer {
        let source: SocketAddr = source.parse().expect("addr");
        request.extensions_mut().insert(ConnectInfo(source));
        if !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, HOST.parse().expect("value"));
        }
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from(PHONE, request).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(write("POST", path, "").body(body.to_string().into()).expect("request")).await
    }

    async fn put(&self, path: &str, cookie: &str, body: Value) -> Answer {
        self.send(write("PUT", path, cookie).body(body.to_string().into()).expect("request")).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(get(path, headers)).await
    }

    /// The stream's first bytes, and the rest of it.
    async fn events(&self, cookie: &str) -> (StatusCode, axum::body::BodyDataStream) {
        let mut request =
            get("/api/v1/events", &[("cookie", cookie), ("sec-fetch-site", "same-origin")]);
        request.headers_mut().insert(header::HOST, HOST.parse().expect("value"));
        request.extensions_mut().insert(ConnectInfo(PHONE.parse::<SocketAddr>().expect("addr")));
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        (response.status(), response.into_body().into_data_stream())
    }
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request =
        headers.iter().fold(Request::get(path), |r, (name, value)| r.header(*name, *value));
    request.body(Body::empty()).expect("request")
}

fn write(method: &str, path: &str, cookie: &str) -> axum::http::request::Builder {
    let request = Request::builder().method(method).uri(format!("/api/v1/{path}"));
    request.header("content-type", "application/json").header("cookie", cookie)
}

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        state: State::Idle,
        problem: None,
        problems: vec![],
        storage: Default::default(),
        pause: PauseView::Off,
        egress_bytes_per_second: 0,
        egress_bytes_per_second_max: 1_250_000,
        egress_bytes_per_second_allowed: 1_250_000,
        allowance_reason: Reason::Limit,
        line_bytes_per_second: None,
        egress_history: vec![],
        lan_egress_bytes_per_second: 0,
        peers_connected: 0,
        earnings: Earnings {
            currency: "CNY".into(),
            today_settled: Micros(0),
            today_pending: Micros(0),
            month_settled: Micros(0),
            month_pending: Micros(0),
            today_bytes: 0,
            month_bytes: 0,
        },
        cache: CacheView { quota_bytes: 0, used_bytes: 0, contents: vec![] },
        hub: HubView {
            url: "http://hub.example/".into(),
            enrolled: false,
            list_epoch: None,
            last_contact: None,
            reports_pending: 0,
            reported_bytes: 0,
            problem: None,
        },
    }
}

#[tokio::test]
async fn first_run_sets_the_password_and_logs_the_owner_in() {
    let admin = Admin::new();
    let before = admin.get("/api/v1/session", &[]).await;
    assert_eq!(before.json(), json!({"password_set": false, "logged_in": false}));

    let answer = admin.post("setup", json!({"setup_code": CODE, "password": PASSWORD})).await;
    assert_eq!(answer.json(), json!({"password_set": true, "logged_in": true}));
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("larder_session_8080="), "{cookie}");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/api/", "Max-Age=2592000"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert_eq!(admin.get("/api/v1/status", &[("cookie", &answer.cookie())]).await.status, 200);
    let stored = admin.credentials.password_hash().expect("in memory").expect("set");
    assert!(stored.starts_with("$argon2id$") && !stored.contains(PASSWORD));
}

#[tokio::test]
async fn the_one_time_code_works_once() {
    let (admin, _) = Admin::set_up().await;
    let again = json!({"setup_code": CODE, "password": "another password"});
    let answer = admin.post("setup", again).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::CONFLICT, "password_already_set")
    );
    assert_eq!(admin.post("login", json!({"password": PASSWORD})).await.status, 200);
}

#[tokio::test]
async fn the_one_time_code_works_once_even_for_two_at_the_same_time() {
    let admin = Admin::new();
    let claim =
        |password: &str| admin.post("setup", json!({"setup_code": CODE, "password": password}));
    let (a, b) = tokio::join!(claim("first password"), claim("second password"));
    let mut both = [a.status.as_u16(), b.status.as_u16()];
    both.sort_unstable();
    assert_eq!(both, [200, 409]);
}

#[tokio::test]
async fn there_are_no_default_credentials() {
    let admin = Admin::new();
    for guess in ["", "admin", "password", "larder", "1234567890", CODE] {
        let answer = admin.post("login", json!({"password": guess})).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::CONFLICT, "no_password_yet")
        );
    }
    for code in ["", " ", "0000-0000"] {
        let answer = admin.post("setup", json!({"setup_code": code, "password": PASSWORD})).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::FORBIDDEN, "wrong_setup_code")
        );
    }
    assert_eq!(admin.credentials.password_hash().expect("in memory"), None);
}

#[tokio::test]
async fn refuses_a_short_password_without_spending_a_try() {
    let admin = Admin::new();
    for _ in 0..FREE_TRIES + 1 {
        let answer = admin
            .post("setup", json!({"setup_code": CODE, "password": "九个字符的密码还短"}))
            .await;
        assert_eq!(answer.code(), "password_too_short");
    }
    let answer =
        admin.post("setup", json!({"setup_code": CODE, "password": "十个字符的密码就够长"})).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn makes_guessers_of_the_password_wait() {
    let (admin, _) = Admin::set_up().await;
    for _ in 0..FREE_TRIES {
        let answer = admin.post("login", json!({"password": "wrong password"})).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::FORBIDDEN, "wrong_password")
        );
    }
    let answer = admin.post("login", json!({"password": PASSWORD})).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "even with the right one");
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    let body = json!({"password": PASSWORD}).to_string();
    let tablet = write("POST", "login", "").body(body.into()).expect("request");
    assert_eq!(admin.send_from("192.168.1.21:1", tablet).await.status, 200);
}

#[tokio::test]
async fn makes_guessers_of_the_code_wait() {
    let admin = Admin::new();
    for guess in 0..FREE_TRIES {
        let wrong = json!({"setup_code": format!("{guess:08}"), "password": PASSWORD});
        assert_eq!(admin.post("setup", wrong).await.status, StatusCode::FORBIDDEN);
    }
    let answer = admin.post("setup", json!({"setup_code": CODE, "password": PASSWORD})).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn everything_of_the_owners_needs_a_login() {
    let (admin, cookie) = Admin::set_up().await;
    let forged = format!("larder_session_8080={}", "0".repeat(64));
    for cookie in ["", forged.as_str(), &cookie[..cookie.len() - 1], &cookie.replace("8080", "80")]
    {
        for path in ["/api/v1/status", "/api/v1/events"] {
            let answer = admin.get(path, &[("cookie", cookie)]).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (StatusCode::UNAUTHORIZED, "not_logged_in")
            );
        }
        let limit = json!({"egress_bytes_per_second_max": 5000});
        assert_eq!(admin.put("limit", cookie, limit).await.status, StatusCode::UNAUTHORIZED);
        let pause = json!({"pause": "until_resumed"});
        assert_eq!(admin.put("pause", cookie, pause).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(admin.device.writes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn logging_out_ends_the_session_everywhere() {
    let (admin, cookie) = Admin::set_up().await;
    let (_, mut stream) = admin.events(&cookie).await;
    stream.next().await.expect("a first status").expect("bytes");
    let request = write("POST", "logout", &cookie).body("{}".into()).expect("request");
    let answer = admin.send(request).await;
    assert_eq!(answer.json(), json!({"password_set": true, "logged_in": false}));
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(admin.get("/api/v1/status", &[("cookie", &cookie)]).await.status, 401);
    assert!(stream.next().await.is_none(), "the live stream has ended too");
}

#[tokio::test]
async fn refuses_other_names_for_itself() {
    let (admin, cookie) = Admin::set_up().await;
    for host in ["evil.example", "evil.example:8080", "larder.local.evil.example", "8.8.8.8"] {
        for path in ["/", "/api/v1/session", "/api/v1/status"] {
            let answer = admin.get(path, &[("host", host), ("cookie", &cookie)]).await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{host}{path}");
        }
    }
    let absolute = get("http://evil.example/api/v1/session", &[("host", HOST)]);
    assert_eq!(admin.send(absolute).await.status, StatusCode::MISDIRECTED_REQUEST);
    let twice = get("/", &[("host", HOST), ("host", "evil.example")]);
    assert_eq!(admin.send(twice).await.status, StatusCode::MISDIRECTED_REQUEST);
    for host in ["larder.local", "localhost:8080", "10.0.0.1", "[::1]:8080"] {
        assert_eq!(admin.get("/", &[("host", host)]).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn refuses_writes_and_streams_from_other_sites() {
    let (admin, cookie) = Admin::set_up().await;
    let hostile = [
        ("origin", "http://evil.example"),
        ("origin", "http://192.168.1.1"),
        ("origin", "http://192.168.1.1:8081"),
        ("origin", "null"),
        ("origin", "file://192.168.1.1:8080"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for (name, value) in hostile {
        let pause = write("PUT", "pause", &cookie).header(name, value);
        let answer = admin.send(pause.body(r#"{"pause":"off"}"#.into()).expect("request")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::FORBIDDEN, "cross_origin")
        );
        let login = write("POST", "login", "").header(name, value);
        let body = json!({"password": PASSWORD}).to_string();
        assert_eq!(admin.send(login.body(body.into()).expect("request")).await.status, 403);
        let events = admin.get("/api/v1/events", &[("cookie", &cookie), (name, value)]).await;
        assert_eq!(events.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    assert_eq!(admin.device.writes.load(Ordering::Relaxed), 0);

    let own = write("PUT", "pause", &cookie).header("origin", format!("http://{HOST}"));
    let own = own.header("sec-fetch-site", "same-origin");
    let answer = admin.send(own.body(r#"{"pause":"off"}"#.into()).expect("request")).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn takes_no_write_that_a_form_could_send() {
    let (admin, cookie) = Admin::set_up().await;
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    {
        let request = Request::put("/api/v1/pause").header("cookie", &cookie);
        let request = request.header("content-type", content_type);
        let answer = admin.send(request.body(r#"{"pause":"off"}"#.into()).expect("request")).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
}

#[tokio::test]
async fn refuses_whoever_is_not_in_the_lan() {
    let admin = Admin::new();
    for source in ["203.0.113.9:1", "100.64.0.9:1", "[2001:db8::9]:1", "[::ffff:8.8.8.8]:1"] {
        let answer = admin.send_from(source, get("/", &[])).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{source}");
    }
    for source in ["127.0.0.1:1", "[fe80::9]:1", "[::ffff:192.168.1.9]:1"] {
        assert_eq!(admin.send_from(source, get("/", &[])).await.status, 200, "{source}");
    }
}

#[tokio::test]
async fn refuses_bodies_that_are_large_or_not_as_described() {
    let (admin, cookie) = Admin::set_up().await;
    let large = json!({"password": "x".repeat(17 * 1024)});
    assert_eq!(admin.post("login", large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for (path, body) in [
        ("limit", json!({"egress_bytes_per_second_max": -1})),
        ("limit", json!({"egress_bytes_per_second_max": 5000, "also": 1})),
        ("limit", json!([])),
        ("pause", json!({"pause": "forever"})),
        ("pause", json!({"pause": "for", "seconds": 4_294_967_296_u64})),
    ] {
        let answer = admin.put(path, &cookie, body.clone()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::BAD_REQUEST, "malformed"),
            "{body}"
        );
    }
    for (path, body, code) in [
        ("limit", json!({"egress_bytes_per_second_max": 0}), "limit_too_low"),
        ("limit", json!({"egress_bytes_per_second_max": 2_000_000_000_u64}), "device"),
        ("pause", json!({"pause": "for", "seconds": 0}), "pause_out_of_range"),
        ("pause", json!({"pause": "for", "seconds": u32::MAX}), "pause_out_of_range"),
    ] {
        let answer = admin.put(path, &cookie, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, code));
    }
    assert_eq!(admin.device.writes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn answers_a_change_with_what_the_device_made_of_it() {
    let (admin, cookie) = Admin::set_up().await;
    let answer = admin.put("limit", &cookie, json!({"egress_bytes_per_second_max": 250_000})).await;
    assert_eq!(answer.json()["egress_bytes_per_second_max"], 250_000);
    let answer = admin.put("pause", &cookie, json!({"pause": "for", "seconds": 900})).await;
    assert_eq!(answer.json()["pause"], json!({"pause": "for", "seconds_left": 900}));
    let answer = admin.get("/api/v1/status", &[("cookie", &cookie)]).await;
    assert_eq!(answer.json()["egress_bytes_per_second_max"], 250_000);
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn streams_changes_at_most_once_a_second_and_silence_never_longer_than_three() {
    let (admin, cookie) = Admin::set_up().await;
    let (status, mut stream) = admin.events(&cookie).await;
    assert_eq!(status, 200);
    let mut next = async || {
        let bytes = stream.next().await.expect("an event").expect("bytes");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let data = text.strip_prefix("event: status\ndata: ").expect("a status event");
        serde_json::from_str::<Status>(data).expect("a status").peers_connected
    };
    let start = Instant::now();
    assert_eq!(next().await, 0);
    for peers in 1..=5 {
        admin.device.change(|s| s.peers_connected = peers);
    }
    assert_eq!(next().await, 5);
    let second = Duration::from_secs(1);
    assert!(start.elapsed() >= second, "{:?}", start.elapsed());
    assert_eq!(next().await, 5);
    assert!(start.elapsed() >= second * 4, "{:?}", start.elapsed());
}

#[tokio::test]
async fn bounds_the_number_of_live_streams() {
    let (admin, cookie) = Admin::set_up().await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(admin.events(&cookie).await);
    }
    assert!(streams.iter().all(|(status, _)| *status == 200));
    assert_eq!(admin.events(&cookie).await.0, StatusCode::SERVICE_UNAVAILABLE);
    streams.pop();
    assert_eq!(admin.events(&cookie).await.0, 200, "a closed stream makes room");
}

#[tokio::test]
async fn live_streams_end_when_the_device_stops() {
    let (admin, cookie) = Admin::set_up().await;
    let (_, mut stream) = admin.events(&cookie).await;
    stream.next().await.expect("a first status").expect("bytes");
    admin.device.stop();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn serves_the_page_with_a_strict_policy_and_its_files_for_good() {
    let admin = Admin::new();
    let page = admin.get("/", &[]).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-cache");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), value);
    }
    let unchanged = admin.get("/", &[("if-none-match", page.header("etag"))]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));

    let html = String::from_utf8(page.body.to_vec()).expect("text");
    let script = html.split('"').find(|s| s.ends_with(".js")).expect("a script");
    let plain = admin.get(script, &[]).await;
    assert_eq!(plain.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(plain.header("content-encoding"), "");
    let packed = admin.get(script, &[("accept-encoding", "gzip, br")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < plain.body.len());
    assert_eq!(packed.header("content-type"), "text/javascript; charset=utf-8");
}

#[tokio::test]
async fn nothing_climbs_out_of_the_page() {
    let admin = Admin::new();
    for path in [
        "/../Cargo.toml",
        "/assets/../index.html",
        "/assets/../../src/lib.rs",
        "/%2e%2e/Cargo.toml",
        "/..%2fCargo.toml",
        "/%252e%252e%252fCargo.toml",
        "/..%5cCargo.toml",
        "/..%c0%afCargo.toml",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/index.html%00.js",
        "/./index.html",
        "/assets/",
        "/assets",
        "/index.html.gz",
        "/api/../index.html",
        "/api/%2e%2e/index.html",
    ] {
        let answer = admin.get(path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let answer = admin.get("/api/v1/nothing", &[]).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "not_found"));
}
