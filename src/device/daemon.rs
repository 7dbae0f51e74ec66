//! The event loop: messages go to the pure node, its commands go to tasks and to the serving engine.
//! Everything that changes lives here, on one task; nothing here waits for disk or network.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::rngs::StdRng;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    announcing::announcement,
    auto::Auto,
    bookkeeping::{Bookkeeping, FLUSH_INTERVAL},
    books::Books,
    clock::Clock,
    disk::Disk,
    filling,
    lan::LanService,
    line::Line,
    message::{Message, Topic, Wish},
    serve::{Engine, Servable, ServeCommand},
    status::{self, EgressHistory, Holding},
    store::{Store, StoreError, StoredContent},
    swarm::FillSource,
    tasks::{self, Context, Terms},
};
use crate::{
    api::{
        admin::{Earnings, PauseRequest, PauseView, Status, StorageView},
        endpoints::{ENDPOINTS_FILE, STATUS_SOCKET},
    },
    config::device::DeviceConfig,
    logic::{
        governor::allowance::{Pause, Reason},
        infohash::Infohash,
        node::{AnnounceEvent, Command, Event, Node},
        now::{Now, UnixSeconds},
    },
};

/// While nothing happens and nobody looks: each wake-up costs a sleeping router more than the work does.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);
/// When nothing is due, look again then; the tick comes sooner anyway.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// At stop, trackers get this long to hear goodbye and the hub to take a last report.
const GOODBYE: Duration = Duration::from_secs(3);

/// Names of what is kept in the store's settings.
pub(super) mod setting {
    pub const ENROLLED: &str = "enrolled";
    pub const LIMIT: &str = "egress_bytes_per_second_max";
    pub const PAUSED_UNTIL: &str = "paused_until";
    pub const LIST: &str = "hot_list";
    pub const POLICY: &str = "policy";
    pub const LINE_TRAFFIC: &str = "line_traffic";
    pub const LIST_VALID_UNTIL: &str = "hot_list_valid_until";
}

/// The one fill that is going on, or the last one.
pub struct Fill {
    infohash: Infohash,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Fill {
    async fn stop(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("a fill ended badly: {error}");
        }
    }
}

pub struct Daemon {
    pub(super) config: DeviceConfig,
    pub(super) clock: Clock,
    pub(super) node: Node<StdRng>,
    /// Before the engine, which it speaks to: it stops first.
    pub(super) auto: Option<Auto>,
    pub(super) engine: Engine,
    /// Told by the engine when peers come after there were none.
    pub(super) engine_awake: Arc<Notify>,
    pub(super) context: Context,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) books: Books,
    pub(super) line: Line,
    /// The reason for the allowance that was last logged.
    pub(super) reason: Reason,
    pub(super) holdings: BTreeMap<Infohash, Holding>,
    pub(super) history: EgressHistory,
    pub(super) lan: LanService,
    pub(super) status: watch::Sender<Status>,
    /// Receivers of `status` that are always there; any more are open pages.
    pub(super) own_watchers: usize,
    pub(super) fill: Option<Fill>,
    pub(super) bookkeeping: Bookkeeping,
    pub(super) last_contact: Option<UnixSeconds>,
    pub(super) hub_problems: BTreeMap<Topic, String>,
    pub(super) storage: StorageView,
    pub(super) disk: Disk,
    pub(super) peer_port: u16,
}

impl Daemon {
    /// Until `stop` says so; then leaves nothing half done.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut ticked_at = Instant::now();
        let mut touched = true;
        tokio::pin!(stop);
        loop {
            self.obey();
            let quiet = !touched && self.is_quiet();
            let tick_at = ticked_at + if quiet { QUIET_INTERVAL } else { FLUSH_INTERVAL };
            let due =
                self.node.poll_timeout(self.clock.now()).map(|at| self.clock.instant(at).into());
            let due = due.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP);
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(message) = self.inbox.recv() => {
                    self.handle(message);
                    touched = true;
                }
                () = sleep_until(tick_at) => {
                    self.tick();
                    ticked_at = Instant::now();
                    touched = false;
                }
                () = sleep_until(due) => {
                    self.node.handle_timeout(self.clock.now());
                    touched = true;
                }
                () = self.engine_awake.notified() => {}
            }
        }
        self.stop().await;
    }

    /// Nothing to write, nobody to serve, nobody who looks: the next tick can wait.
    fn is_quiet(&self) -> bool {
        let stats = self.engine.stats();
        stats.peers_connected == 0
            && self.bookkeeping.is_quiet(stats)
            && self.status.borrow().pause == PauseView::Off
            && self.status.receiver_count() <= self.own_watchers
    }

    /// Carries out what the node decided.
    fn obey(&mut self) {
        while let Some(command) = self.node.poll_command() {
            let context = self.context.clone();
            let now = self.clock.now().wall.synced();
            match command {
                Command::Enrol => {
                    let code = self.config.hub.claim_code.clone();
                    tokio::spawn(tasks::enrol(context, code, now.unwrap_or_default()));
                }
                Command::FetchList => {
                    let (held, wall) = (self.node.list().cloned(), self.clock.now().wall);
                    tokio::spawn(tasks::fetch_list(context, held, wall));
                }
                Command::Fill { entry, part, bytes_max } => {
                    let (infohash, cancel) = (entry.infohash, CancellationToken::new());
                    let (clock, wanted) = (self.clock.clone(), (part, bytes_max));
                    let fill = filling::fill(context, entry, wanted, clock, cancel.clone());
                    self.fill = Some(Fill { infohash, cancel, task: tokio::spawn(fill) });
                }
                Command::Serve(infohash) => self.serve(infohash),
                Command::Evict(infohash) => self.evict(infohash),
                Command::SetAllowance(allowance) => match &self.auto {
                    Some(auto) => auto.set_ceiling(allowance),
                    None => self.engine.send(ServeCommand::SetAllowance(allowance)),
                },
                Command::Announce { entry, event } => self.announce(entry, event),
                Command::Report => self.report(),
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Event(event) => {
                self.count_before(&event, now);
                self.remember(&event);
                let list_changed = matches!(event, Event::ListVerified { .. });
                self.node.handle_event(event, now);
                if list_changed {
                    self.weigh_all();
                    self.follow_policy();
                }
                self.look_up_destinations();
            }
            Message::Destinations(destinations) => {
                if let Some(auto) = &self.auto {
                    auto.set_destinations(destinations);
                }
            }
            Message::Contact(topic, heard) => self.heard(topic, heard),
            Message::Servable(servable) => {
                let infohash = servable.infohash;
                if self.fill.as_ref().is_some_and(|fill| fill.infohash == infohash) {
                    self.engine.send(ServeCommand::Add(servable));
                    self.weigh(infohash);
                }
                self.refresh_holding(infohash);
            }
            Message::Named { infohash, leechers } => {
                self.engine.send(ServeCommand::Named { infohash, leechers });
            }
            Message::PieceVerified { infohash, piece, source, bytes } => {
                self.piece_verified(infohash, piece, source, bytes);
            }
            Message::FillWaits { infohash, sentence } => {
                self.holdings.entry(infohash).or_default().waits = sentence;
            }
            Message::Found(found) => self.handle_found(found),
            Message::DiskTried { unwritten, result } => self.handle_disk_tried(unwritten, result),
            Message::Saved(result) => self.handle_saved(result),
            Message::Synced(result) => self.handle_synced(result),
            Message::Reported { reported_bytes, pending } => {
                self.books.reported_bytes = reported_bytes;
                self.books.reports_pending = pending;
            }
            Message::Settled(statement) => self.books.settle(&statement),
            Message::Owner(wish, answer) => {
                // The page may have gone by the time it is answered.
                let _ = answer.send(self.grant(wish, now));
            }
        }
    }

    fn heard(&mut self, topic: Topic, heard: Result<Option<UnixSeconds>, String>) {
        match heard {
            Ok(server_time) => {
                if let Some(server_time) = server_time {
                    self.clock.learn(server_time);
                }
                self.last_contact = self.clock.now().wall.synced();
                self.hub_problems.remove(&topic);
            }
            Err(problem) => {
                if self.hub_problems.get(&topic) != Some(&problem) {
                    tracing::warn!("{problem}");
                }
                self.hub_problems.insert(topic, problem);
            }
        }
    }

    /// Once a second unless it is quiet: the ledger, the graph, the page.
    pub(super) fn tick(&mut self) {
        self.keep_books();
        self.context.keeper.look();
        self.look_after_disk();
        let now = self.clock.now();
        self.count(now);
        let stats = self.engine.stats();
        self.history.sample(stats.egress_wire_bytes_total, now.monotonic);
        self.lan.sample(stats, now.monotonic);
        let status = self.compose_status(now);
        self.status.send_if_modified(|held| {
            let changed = *held != status;
            if changed {
                *held = status;
            }
            changed
        });
    }

    /// What must survive a restart: of what the owner wants, before the node acts on it. What the disk
    /// does not take is written as soon as it does.
    fn remember(&mut self, event: &Event) {
        match event {
            Event::Enrolled => self.write_setting(setting::ENROLLED, &true),
            Event::NotEnrolled => self.write_setting(setting::ENROLLED, &false),
            Event::ListVerified { list, policy, valid_until } => {
                self.write_setting(setting::LIST, list);
                self.write_setting(setting::POLICY, policy);
                self.write_setting(setting::LIST_VALID_UNTIL, valid_until);
            }
            Event::LimitSet { egress_bytes_per_second_max } => {
                self.write_wish(setting::LIMIT, egress_bytes_per_second_max);
            }
            Event::PauseSet(pause) => {
                self.write_wish(setting::PAUSED_UNTIL, &self.pause_wall(pause));
            }
            Event::FillFailed { .. } => self.disk.suspect(),
            _ => {}
        }
    }

    fn piece_verified(&mut self, infohash: Infohash, piece: u32, source: FillSource, bytes: u64) {
        self.engine.send(ServeCommand::Have { infohash, piece });
        let holding = self.holdings.entry(infohash).or_default();
        holding.held_bytes += bytes;
        self.line.filled(bytes);
        match source {
            FillSource::WebSeed => holding.web_seed_bytes += bytes,
            FillSource::Peer => holding.peer_bytes += bytes,
        }
    }

    fn grant(&mut self, wish: Wish, now: Now) -> Result<Status, String> {
        let event = match wish {
            Wish::Limit(limit) if limit < 1024 => {
                return Err(
                    "the limit must be at least 1024 bytes per second; to stop serving, pause"
                        .into(),
                );
            }
            Wish::Limit(limit) => Event::LimitSet { egress_bytes_per_second_max: limit },
            Wish::Removal(request) => self.removal(request)?,
            Wish::Pause(PauseRequest::Off) => Event::PauseSet(Pause::Off),
            Wish::Pause(PauseRequest::UntilResumed) => Event::PauseSet(Pause::UntilResumed),
            Wish::Pause(PauseRequest::For { seconds }) => {
                Event::PauseSet(Pause::Until(now.monotonic + Duration::from_secs(seconds.into())))
            }
        };
        self.remember(&event);
        self.node.handle_event(event, now);
        self.obey();
        self.lan.heed(self.node.snapshot().allowance.pause, &self.engine);
        let status = self.compose_status(now);
        self.status.send_replace(status.clone());
        Ok(status)
    }

    /// A content that is complete on disk.
    fn serve(&mut self, infohash: Infohash) {
        let store = &self.context.store;
        let servable = store.metainfo(infohash).and_then(|metainfo| {
            let stored = store.stored_content(infohash)?;
            Ok(metainfo.zip(stored).map(|(metainfo, stored)| Servable {
                infohash,
                piece_length: metainfo.piece_length,
                total_bytes: metainfo.total_bytes,
                info_bytes: metainfo.info_bytes.into(),
                have: stored.have,
            }))
        });
        match servable {
            Ok(Some(servable)) => {
                self.engine.send(ServeCommand::Add(servable));
                self.context.keeper.guard(infohash);
                self.weigh(infohash);
            }
            Ok(None) => tracing::error!(%infohash, "cannot serve: the store does not know it"),
            Err(error) => tracing::error!(%infohash, "cannot serve: {error}"),
        }
    }

    /// The fill ends first: what it still had to record must not be said of a later fill's file.
    pub(super) fn evict(&mut self, infohash: Infohash) {
        let fill = self.fill.take_if(|fill| fill.infohash == infohash);
        self.engine.send(ServeCommand::Remove { infohash });
        self.context.keeper.forget(infohash);
        let context = self.context.clone();
        tokio::spawn(async move {
            if let Some(fill) = fill {
                fill.stop().await;
            }
            let store = context.store.clone();
            let removed = tokio::task::spawn_blocking(move || store.remove(infohash)).await;
            // A fill that has ended only now may have had it kept again.
            context.keeper.forget(infohash);
            match removed {
                Ok(Ok(())) => tracing::info!(%infohash, "evicted"),
                Ok(Err(error)) => tracing::error!(%infohash, "cannot evict: {error}"),
                Err(error) => tracing::error!(%infohash, "cannot evict: {error}"),
            }
            context.tell(Message::Event(Event::Evicted(infohash))).await;
        });
        self.holdings.remove(&infohash);
    }

    fn report(&mut self) {
        let (time, terms) = (self.report_time(), self.terms());
        tokio::spawn(tasks::report(self.context.clone(), time, terms));
    }

    fn terms(&self) -> Terms {
        let listed = self.node.list().into_iter().flat_map(|list| &list.entries);
        Terms {
            statement_keys: self
                .node
                .policy()
                .map(|p| p.statement_keys.clone())
                .unwrap_or_default(),
            listed: listed.map(|entry| entry.infohash).collect(),
        }
    }

    fn refresh_holding(&mut self, infohash: Infohash) {
        match holdings(&self.context.store) {
            Ok(mut all) => {
                if let Some(holding) = all.remove(&infohash) {
                    self.holdings.insert(infohash, holding);
                }
            }
            Err(error) => tracing::error!("cannot read what is held: {error}"),
        }
    }

    fn compose_status(&self, now: Now) -> Status {
        let stats = self.engine.stats();
        let wall = now.wall.synced().unwrap_or_default();
        let (today, month) = self.books.sums(wall, self.node.list(), self.node.policy());
        let currency = self.node.policy().map(|p| p.currency.clone()).unwrap_or_default();
        status::status(status::Sources {
            snapshot: self.node.snapshot(),
            now,
            history: &self.history,
            lan_egress_bytes_per_second: self.lan.egress_bytes_per_second(),
            peers_connected: stats.peers_connected,
            peers_unchoked: stats.peers_unchoked,
            earnings: Earnings {
                currency,
                today_settled: today.settled,
                today_pending: today.pending,
                month_settled: month.settled,
                month_pending: month.pending,
                today_bytes: today.bytes,
                month_bytes: month.bytes,
            },
            quota_bytes: self.config.cache.quota_bytes,
            hub_url: hub_url(&self.config),
            last_contact: self.last_contact,
            hub_problem: self.hub_problems.values().next().cloned(),
            line_problem: self.auto.as_ref().and_then(|auto| auto.view().problem),
            store_problem: self.disk.problem().or_else(|| self.bookkeeping.problem()),
            storage: self.storage,
            reports_pending: self.books.reports_pending,
            reported_bytes: self.books.reported_bytes,
            holding: &|infohash| {
                let mut holding = self.holdings.get(&infohash)?.clone();
                holding.egress_bytes = self.context.store.egress(infohash).payload_bytes;
                Some(holding)
            },
        })
    }

    /// Leaves nothing half done: peers closed, counts in the ledger, trackers told, a last report.
    async fn stop(mut self) {
        tracing::info!("stopping");
        for file in [ENDPOINTS_FILE, STATUS_SOCKET] {
            let _ = std::fs::remove_file(self.config.data_dir.join(file));
        }
        if let Some(fill) = self.fill.take() {
            // What it has verified goes into the piece map, if the disk lets it.
            let _ = timeout(GOODBYE, fill.stop()).await;
        }
        let round = self.last_round().await;
        let (time, terms) = (self.report_time(), self.terms());
        drop(self.auto.take());
        round.close(&self.context.store, self.engine.stop());
        if let Some((hour, bytes)) = self.line.take(self.clock.now().wall)
            && let Err(error) = self.context.store.add_ingress(hour, bytes)
        {
            tracing::error!("cannot keep what was filled for the next start: {error}");
        }
        if let Some(hours) = self.line.hours(self.node.line_traffic())
            && let Err(error) = self.context.store.set_setting(setting::LINE_TRAFFIC, &hours)
        {
            tracing::error!("cannot keep what the line carried for the next start: {error}");
        }
        let (context, held, port) = (&self.context, &self.holdings, self.peer_port);
        let goodbye = |entry| announcement(context, held, port, entry, AnnounceEvent::Stopped);
        let goodbyes: Vec<_> = self.node.goodbyes().into_iter().map(goodbye).collect();
        let farewell = async {
            futures_util::future::join_all(goodbyes).await;
            if time.confirmed.is_some()
                && self.node.snapshot().enrolled
                && self.context.operator.is_some()
            {
                tasks::report(self.context.clone(), time, terms).await;
            }
        };
        // What the farewells say to the daemon goes nowhere; keep the channel from filling up.
        let drain = async { while self.inbox.recv().await.is_some() {} };
        let _ = timeout(GOODBYE, async {
            tokio::select! { () = farewell => (), () = drain => () }
        })
        .await;
    }
}

pub(super) fn holdings(store: &Store) -> Result<BTreeMap<Infohash, Holding>, StoreError> {
    let holding = |c: StoredContent| {
        let holding = Holding {
            size_bytes: c.total_bytes,
            held_bytes: c.held_bytes(),
            wanted_bytes: c.wanted_bytes(),
            web_seed_bytes: c.web_seed_bytes,
            peer_bytes: c.peer_bytes,
            egress_bytes: 0,
            waits: None,
            name: c.name,
        };
        (c.infohash, holding)
    };
    Ok(store.contents()?.into_iter().map(holding).collect())
}

/// For the owner's page; empty when the device stands alone.
pub(super) fn hub_url(config: &DeviceConfig) -> String {
    config.hub.url.as_ref().map(ToString::to_string).unwrap_or_default()
}
