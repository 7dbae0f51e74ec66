//! Puts a daemon together: opens the store, finds the identity, binds the sockets, and restores
//! what the node knew before the restart.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use reqwest::Client;
use socket2::{Domain, Socket, Type};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, Notify, mpsc, watch},
};

use super::{
    admin::{self, AdminSettings},
    auto::{self, Auto},
    bookkeeping::{self, Bookkeeping},
    books::Books,
    clock::Clock,
    daemon::{Daemon, holdings, hub_url, setting},
    disk::Disk,
    gateway::WanInterface,
    identity::Identity,
    keeper::{self, Desk, Keeper, Scrub},
    lan::LanService,
    line::{self, Line},
    message::Message,
    observe, open_files,
    outbound::Outbound,
    owner::{OwnerBackend, StoredCredentials, setup_code},
    placing, quiet,
    serve::{Engine, ServeSettings},
    status::{self, EgressHistory},
    store::{Store, StoreError},
    swarm::{FillSettings, Filler, Throttle},
    tasks::{self, Context, Operator},
    upstream::{self, Hub, ListRepository, UpstreamError},
};
use crate::{
    api::{
        admin::{Earnings, Status, StorageView},
        endpoints::{DeviceEndpoints, ENDPOINTS_FILE},
        hub::StatementRequest,
        signed::SigningKey,
    },
    config::device::DeviceConfig,
    logic::{
        governor::allowance::{self, Governor, Pause, Reason, Traffic},
        hotlist::{HotList, Policy},
        node::{Node, Settings, Snapshot, Stored},
        now::{Now, UnixSeconds},
        reach::Reach,
    },
};

/// Messages in flight; tasks wait when the daemon is this far behind.
const INBOX: usize = 256;
const CHECKED: &str = "the configuration was checked when it was read";
/// The store's secret that holds the identity, PKCS#8.
const IDENTITY_KEY: &str = "identity_key";

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "cannot read the operator's root file {path}: {source}; copy root.json from the hub and name it in hub.root_file"
    )]
    RootFile { path: PathBuf, source: io::Error },
    #[error(
        "the identity key in {0} is damaged; restore it from a backup, or remove the folder to begin as a new device"
    )]
    Identity(PathBuf),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl DaemonError {
    /// sysexits.h
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::RootFile { .. } => 78,
            DaemonError::Listen { .. } | DaemonError::Upstream(_) => 69,
            DaemonError::Store(_) | DaemonError::Identity(_) | DaemonError::Io(_) => 74,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: DeviceConfig) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let daemon = Daemon::start(config).await?;
    let told = async {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
    };
    // The loop's state is large: it is moved once, as a pointer.
    Box::pin(daemon.run(told)).await;
    Ok(())
}

impl Daemon {
    async fn start(mut config: DeviceConfig) -> Result<Daemon, DaemonError> {
        open_files::make_room(&mut config.serve);
        let store = Store::open(&config.data_dir)?;
        let clock = Clock::new(config.hub.url.is_some(), store.newest_entry()?);
        let now = clock.now();
        let identity = Arc::new(identity(&store, &config.data_dir)?);
        let bookkeeping = Bookkeeping::open(&store, &identity.key, &clock)?;
        let listeners = listen(&config.serve.listen)?;
        let peer = listeners[0].local_addr()?;
        let engine_awake = Arc::new(Notify::new());
        let (messages, inbox) = mpsc::channel(INBOX);
        let settings = serve_settings(&config, &identity, listeners, peer, engine_awake.clone());
        let (engine, keeper) = start_serving(settings, &store, &messages)?;
        Scrub::start(store.clone(), keeper.clone(), config.cache.scrub_bytes_per_second)?;
        let is_auto = config.serve.egress().is_auto;
        let auto = is_auto.then(|| Auto::start(&config, &engine)).transpose()?;
        let (status, seen) = watch::channel(empty_status(&config));
        let admin_url = start_admin(&config, &store, messages.clone(), seen).await?;
        observe::start(&config.data_dir, status.subscribe())?;
        let (followed, node) = node(&config, &store, &identity.device, now)?;
        let context = context(&config, identity, keeper, messages, store)?;
        let mut daemon = Daemon {
            books: books(&context, followed.as_ref(), &clock)?,
            holdings: holdings(&context.store)?,
            clock,
            node,
            auto,
            engine,
            engine_awake,
            context,
            inbox,
            line: Line::with_interface(match config.caps.line_asymmetry().is_trivial() {
                true => None,
                false => auto::wan_interface(&config).open(),
            }),
            reason: Reason::Limit,
            history: EgressHistory::default(),
            lan: LanService::default(),
            own_watchers: status.receiver_count(),
            status,
            fill: None,
            bookkeeping,
            last_contact: None,
            hub_problems: BTreeMap::new(),
            storage: StorageView::default(),
            disk: Disk::default(),
            peer_port: peer.port(),
            config,
        };
        daemon.look_up_destinations();
        daemon.follow_policy();
        daemon.tick();
        let endpoints = DeviceEndpoints { pid: std::process::id(), peer, admin_url };
        write_endpoints(&daemon.config.data_dir, &endpoints)?;
        tracing::info!(%peer, admin = endpoints.admin_url, device = daemon.context.identity.device, "larderd is ready");
        Ok(daemon)
    }
}

fn serve_settings(
    config: &DeviceConfig,
    identity: &Identity,
    listeners: Vec<TcpListener>,
    peer: SocketAddr,
    awake: Arc<Notify>,
) -> ServeSettings {
    ServeSettings {
        listeners,
        peer_id: identity.peer_id,
        client_name: format!("Larder {}", env!("CARGO_PKG_VERSION")),
        connections_max: config.serve.connections_max,
        connections_per_ip_max: config.serve.connections_per_ip_max,
        connections_per_content_max: config.serve.connections_per_content_max,
        listen_port: peer.port(),
        on_first_peer: Box::new(move || awake.notify_one()),
        lan_prefixes: config.serve.settle_lan().expect(CHECKED),
    }
}

/// A device without a hub needs nothing of an operator's; one with a hub trusts nothing but its root.
fn operator(config: &DeviceConfig, http: &Client) -> Result<Option<Arc<Operator>>, DaemonError> {
    let Some(url) = &config.hub.url else {
        tracing::info!("no hub is configured (hub.url): serving only what is pinned here");
        return Ok(None);
    };
    let path = &config.hub.root_file;
    let root = std::fs::read(path)
        .map_err(|source| DaemonError::RootFile { path: path.clone(), source })?;
    let base = with_slash(url.clone());
    let repository = ListRepository::new(http.clone(), &base, root, &config.data_dir.join("tuf"))?;
    let hub = Hub::new(http.clone(), base);
    Ok(Some(Arc::new(Operator { hub, repository: Mutex::new(repository) })))
}

fn context(
    config: &DeviceConfig,
    identity: Arc<Identity>,
    keeper: Desk,
    messages: mpsc::Sender<Message>,
    store: Store,
) -> Result<Context, DaemonError> {
    let http = upstream::client(env!("CARGO_PKG_VERSION"))?;
    let outbound = outbound(config, &http)?;
    let settings = FillSettings::new(store.scratch_dir());
    Ok(Context {
        identity,
        operator: operator(config, &http)?,
        filler: Arc::new(Filler::new(settings, outbound.clone(), Throttle::new(None))),
        outbound,
        fill_rules: Arc::new(fill_rules(config)),
        keeper,
        messages,
        store,
    })
}

/// Where the operator's documents may lead.
fn outbound(config: &DeviceConfig, http: &Client) -> Result<Outbound, DaemonError> {
    let reach = Reach::new(config.hub.url.clone());
    Ok(Outbound::new(http.clone(), reach)
        .map_err(|e| UpstreamError::Local(format!("cannot set up HTTP: {e}")))?)
}

fn fill_rules(config: &DeviceConfig) -> quiet::Rules {
    let wan = match config.fill.yields_to_household {
        true => auto::wan_interface(config),
        false => WanInterface::None,
    };
    quiet::Rules { hours: config.fill.settle().expect(CHECKED), wan }
}

/// The engine, and the keeper that checks what it serves.
fn start_serving(
    settings: ServeSettings,
    store: &Store,
    messages: &mpsc::Sender<Message>,
) -> io::Result<(Engine, Desk)> {
    let (desk, tasks) = keeper::desk();
    let engine = Engine::start_checking(settings, Box::new(desk.files()), Box::new(desk.clone()))?;
    // Before the first lease: unheard, the signal would end the process.
    hear_of_leases(desk.clone())?;
    Keeper::start(&desk, tasks, store.clone(), engine.remote(), messages.clone())?;
    Ok((engine, desk))
}

/// The kernel says that somebody wants to write to a file that is being served.
fn hear_of_leases(keeper: Desk) -> io::Result<()> {
    let mut wanted = signal(SignalKind::io())?;
    tokio::spawn(async move {
        while wanted.recv().await.is_some() {
            keeper.lease_wanted();
        }
    });
    Ok(())
}

fn identity(store: &Store, data_dir: &Path) -> Result<Identity, DaemonError> {
    if let Some(der) = store.secret(IDENTITY_KEY)? {
        let key = SigningKey::from_pkcs8(&der);
        return Ok(Identity::new(key.ok_or_else(|| DaemonError::Identity(data_dir.to_owned()))?));
    }
    let key = SigningKey::generate();
    store.set_secret(IDENTITY_KEY, &key.to_pkcs8())?;
    Ok(Identity::new(key))
}

type Followed = (HotList, Policy, UnixSeconds);

fn node(
    config: &DeviceConfig,
    store: &Store,
    device: &str,
    now: Now,
) -> Result<(Option<Followed>, Node<StdRng>), DaemonError> {
    let list = store.setting::<HotList>(setting::LIST)?;
    let policy = store.setting::<Policy>(setting::POLICY)?;
    let valid_until = store.setting::<UnixSeconds>(setting::LIST_VALID_UNTIL)?;
    let followed = match (list, policy, valid_until) {
        (Some(list), Some(policy), Some(valid_until)) => Some((list, policy, valid_until)),
        _ => None,
    };
    let limit = store.setting::<u64>(setting::LIMIT)?;
    let allowance = allowance::Settings {
        egress_bytes_per_second_max: limit.unwrap_or(config.serve.egress().bytes_per_second_max),
        pause: match store.setting::<Option<u64>>(setting::PAUSED_UNTIL)?.flatten() {
            None => Pause::Off,
            Some(u64::MAX) => Pause::UntilResumed,
            Some(end) => match now.wall.synced() {
                Some(wall) => {
                    Pause::Until(now.monotonic + Duration::from_secs(end.saturating_sub(wall.0)))
                }
                None => Pause::UntilResumed,
            },
        },
        ..configured_allowance(config)
    };
    let settings = Settings {
        has_operator: config.hub.url.is_some(),
        quota_bytes: config.cache.quota_bytes,
        enrolled: store.setting::<bool>(setting::ENROLLED)?.unwrap_or(false),
        allowance,
        line_traffic: line::line_traffic(store.setting(setting::LINE_TRAFFIC)?.unwrap_or_default()),
        placing: placing::placing(config, store, device)?,
    };
    let stored = store.contents()?.into_iter().map(|c| Stored {
        infohash: c.infohash,
        size_bytes: c.wanted_bytes(),
        complete: c.is_complete(),
        part: c.part,
        pinned: c.pinned,
        linked: c.linked,
    });
    let rng = StdRng::from_rng(&mut rand::rng());
    let traffic = line::traffic(store, now)?;
    let node = Node::new(settings, traffic, stored.collect(), followed.clone(), rng, now);
    Ok((followed, node))
}

/// What the file says, before the owner's slider and pause.
fn configured_allowance(config: &DeviceConfig) -> allowance::Settings {
    let (caps, asymmetry) = config.caps.settle();
    allowance::Settings {
        schedule: config.schedule.settle("schedule").expect(CHECKED),
        caps,
        asymmetry,
        line_asymmetry: config.caps.line_asymmetry(),
        ..allowance::Settings::with_limit(config.serve.egress().bytes_per_second_max)
    }
}

fn books(
    context: &Context,
    followed: Option<&Followed>,
    clock: &Clock,
) -> Result<Books, DaemonError> {
    let store = &context.store;
    let Some(wall) = clock.now().wall.synced() else {
        return Ok(Books::open(UnixSeconds(0), &[]));
    };
    let month = wall.hour().day().month();
    let lines = bookkeeping::month_lines(store, &clock.known_if(wall))?;
    let mut books = Books::open(wall, &lines);
    books.reported_bytes = store.reported_bytes()?;
    books.reports_pending = store.unsent_reports()?.len() as u64;
    let request = StatementRequest {
        device: context.identity.device.clone(),
        month: month.to_string(),
        created_at: wall,
    };
    let keys = followed.map(|(_, policy, _)| policy.statement_keys.clone()).unwrap_or_default();
    if let Some(signed) = store.statement(month)?
        && let Ok(statement) = tasks::open_statement(&signed, &keys, &request)
    {
        books.settle(&statement);
    }
    Ok(books)
}

/// IPv6 sockets take IPv6 only, so that both families can be named beside each other.
fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, DaemonError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let bind = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(1024)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        match bind() {
            Ok(listener) => listeners.push(listener),
            // A kernel without IPv6 is no reason not to serve IPv4.
            Err(e) if address.is_ipv6() && addresses.len() > 1 => {
                tracing::warn!("not listening on {address}: {e}");
            }
            Err(source) => return Err(DaemonError::Listen { address, source }),
        }
    }
    Ok(listeners)
}

async fn start_admin(
    config: &DeviceConfig,
    store: &Store,
    messages: mpsc::Sender<Message>,
    status: watch::Receiver<Status>,
) -> Result<String, DaemonError> {
    let address = config.admin.listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| DaemonError::Listen { address, source })?;
    let local_addr = listener.local_addr()?;
    let credentials = StoredCredentials { store: store.clone(), data_dir: config.data_dir.clone() };
    let setup_code = setup_code(&credentials)?;
    let admin_url = admin_url(local_addr);
    if let Some(code) = &setup_code {
        tracing::info!("set the owner's password at {admin_url} with the one-time code {code}");
    }
    let settings = AdminSettings {
        hosts: config.admin.hosts.clone(),
        setup_code: setup_code.unwrap_or_default(),
        local_addr,
    };
    let page = admin::serve(
        listener,
        settings,
        Arc::new(OwnerBackend { status, messages }),
        Arc::new(credentials),
    );
    tokio::spawn(async move {
        if let Err(error) = page.await {
            tracing::error!("the admin page has stopped: {error}");
        }
    });
    Ok(admin_url)
}

fn admin_url(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://127.0.0.1:{}/", address.port()),
        false => format!("http://{address}/"),
    }
}

fn write_endpoints(data_dir: &Path, endpoints: &DeviceEndpoints) -> Result<(), DaemonError> {
    let text = serde_json::to_string_pretty(endpoints).expect("our own document serialises");
    let path = data_dir.join(ENDPOINTS_FILE);
    let temporary = path.with_extension("json.new");
    std::fs::write(&temporary, text)?;
    Ok(std::fs::rename(temporary, path)?)
}

fn with_slash(mut url: url::Url) -> url::Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

fn empty_status(config: &DeviceConfig) -> Status {
    let now = Clock::new(false, None).now();
    status::status(status::Sources {
        snapshot: Snapshot {
            enrolled: false,
            list_epoch: None,
            contents: vec![],
            allowance: Governor::new(configured_allowance(config), Traffic::default(), now)
                .snapshot(),
        },
        now,
        history: &EgressHistory::default(),
        lan_egress_bytes_per_second: 0,
        peers_connected: 0,
        peers_unchoked: 0,
        earnings: Earnings {
            currency: String::new(),
            today_settled: Default::default(),
            today_pending: Default::default(),
            month_settled: Default::default(),
            month_pending: Default::default(),
            today_bytes: 0,
            month_bytes: 0,
        },
        quota_bytes: config.cache.quota_bytes,
        hub_url: hub_url(config),
        last_contact: None,
        hub_problem: None,
        line_problem: None,
        store_problem: None,
        storage: StorageView::default(),
        reports_pending: 0,
        reported_bytes: 0,
        holding: &|_| None,
    })
}
