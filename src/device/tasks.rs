//! What the node commands, carried out: each function runs as a task of its own and ends by sending
//! messages to the daemon. Waits on the network and the disk happen here, never in the daemon.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{Mutex, mpsc};

use super::{
    identity::Identity,
    keeper::Desk,
    message::{Message, Topic},
    outbound::Outbound,
    quiet,
    store::{Store, StoreError},
    swarm::Filler,
    upstream::{self, AnnounceRequest, Answer, Hub, ListRepository, Outcome, UpstreamError},
};
use crate::{
    api::{
        hub::{EnrolRequest, Statement, StatementRequest},
        signed::{Signed, SignedError},
    },
    logic::{
        hotlist::{Entry, HotList},
        infohash::Infohash,
        node::{AnnounceEvent, Event},
        now::{UnixSeconds, WallTime},
    },
};

/// What every task needs; cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub identity: Arc<Identity>,
    pub store: Store,
    /// Nobody, when no hub is configured.
    pub operator: Option<Arc<Operator>>,
    pub filler: Arc<Filler>,
    /// To whatever servers the operator's documents name.
    pub outbound: Outbound,
    pub fill_rules: Arc<quiet::Rules>,
    pub keeper: Desk,
    pub messages: mpsc::Sender<Message>,
}

/// Whom this device works for.
pub struct Operator {
    pub hub: Hub,
    pub repository: Mutex<ListRepository>,
}

impl Context {
    /// The node asks for nothing that needs an operator when there is none.
    pub(super) fn operator(&self) -> Result<&Operator, UpstreamError> {
        let none = || UpstreamError::Local("no hub is configured: set hub.url".into());
        self.operator.as_deref().ok_or_else(none)
    }

    pub async fn tell(&self, message: Message) {
        // Nobody listens only while the daemon stops; then nothing needs to be heard.
        let _ = self.messages.send(message).await;
    }

    pub(super) async fn event(&self, event: Event) {
        self.tell(Message::Event(event)).await;
    }

    async fn contact(&self, topic: Topic, result: Result<Option<UnixSeconds>, &UpstreamError>) {
        if let Some(server_time) = result.as_ref().err().and_then(|e| e.server_time()) {
            self.tell(Message::Contact(topic, Ok(Some(server_time)))).await;
        }
        self.tell(Message::Contact(topic, result.map_err(ToString::to_string))).await;
    }

    /// Runs blocking store work off the async threads.
    pub(super) async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, UpstreamError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(|e| UpstreamError::Local(e.to_string())),
            Err(panic) => Err(UpstreamError::Local(panic.to_string())),
        }
    }
}

pub async fn enrol(context: Context, claim_code: String, now: UnixSeconds) {
    if claim_code.is_empty() {
        let problem = "this device is not enrolled: put the operator's claim code into \
                       hub.claim_code and start larderd again";
        context.tell(Message::Contact(Topic::Enrolment, Err(problem.into()))).await;
        return context.event(Event::EnrolFailed).await;
    }
    let request =
        EnrolRequest { claim_code, peer_id: context.identity.peer_id_hex(), created_at: now };
    let enrolled = match context.operator() {
        Ok(operator) => operator.hub.enrol(&Signed::new(&request, &context.identity.key)).await,
        Err(error) => Err(error),
    };
    match enrolled {
        Ok(answer) => {
            context.contact(Topic::Enrolment, Ok(Some(answer.server_time))).await;
            tracing::info!(device = answer.device, "enrolled with the operator");
            context.event(Event::Enrolled).await;
        }
        Err(error) => {
            context.contact(Topic::Enrolment, Err(&error)).await;
            context.event(Event::EnrolFailed).await;
        }
    }
}

pub async fn fetch_list(context: Context, held: Option<HotList>, wall: WallTime) {
    let answer = match context.operator() {
        Ok(operator) => operator.repository.lock().await.fetch(held.as_ref(), wall).await,
        Err(error) => Err(error),
    };
    if let Ok(Answer { outcome, held }) = &answer
        && (*held || matches!(outcome, Outcome::Unchanged))
    {
        context.event(Event::ListHeld(*held)).await;
    }
    match answer.map(|Answer { outcome, .. }| outcome) {
        Ok(Outcome::News(fetched)) => {
            let (list, policy, valid_until) = (fetched.list, fetched.policy, fetched.valid_until);
            if held.as_ref().is_none_or(|held| held.epoch != list.epoch) {
                tracing::info!(
                    epoch = list.epoch,
                    entries = list.entries.len(),
                    "hot list verified"
                );
            }
            context.contact(Topic::List, Ok(None)).await;
            context.event(Event::ListVerified { list, policy, valid_until }).await;
        }
        Ok(Outcome::Unchanged) => {
            context.contact(Topic::List, Ok(None)).await;
            context.event(Event::ListUnchanged).await;
        }
        // All who waited may have been cut off in one moment: they shall not come back in one.
        Ok(Outcome::Cut) => {
            context.event(Event::ListHeld(false)).await;
            context.event(Event::ListUnchanged).await;
        }
        Err(error) => {
            context.contact(Topic::List, Err(&error)).await;
            context.event(Event::ListFailed).await;
        }
    }
}

/// What the operator's documents say about reporting.
#[derive(Default)]
pub struct Terms {
    pub statement_keys: Vec<String>,
    pub listed: BTreeSet<Infohash>,
}

/// The time to report under.
#[derive(Clone, Copy)]
pub struct ReportTime {
    /// The best guess, for asking.
    pub likely: UnixSeconds,
    /// Known well enough to sign something under it.
    pub confirmed: Option<UnixSeconds>,
}

/// Sends every report that waits, then asks what they are worth.
pub async fn report(context: Context, time: ReportTime, terms: Terms) {
    match try_report(&context, time, terms).await {
        Ok(()) => context.event(Event::ReportsDelivered).await,
        Err(error) => {
            context.contact(Topic::Reports, Err(&error)).await;
            context.event(Event::ReportsFailed).await;
            if error.code() == Some("not_enrolled") {
                context.event(Event::NotEnrolled).await;
            }
        }
    }
}

async fn try_report(
    context: &Context,
    time: ReportTime,
    terms: Terms,
) -> Result<(), UpstreamError> {
    let Terms { statement_keys, listed } = terms;
    let hub = &context.operator()?.hub;
    if let Some(confirmed) = time.confirmed {
        build_reports(context, confirmed, listed).await?;
    }
    for (number, signed) in context.stored(Store::unsent_reports).await? {
        let receipt = hub.report(&signed).await?;
        context.contact(Topic::Reports, Ok(Some(receipt.server_time))).await;
        context.stored(move |store| store.report_accepted(number)).await?;
    }
    let pending = context.stored(Store::unsent_reports).await?.len() as u64;
    let reported_bytes = context.stored(Store::reported_bytes).await?;
    context.tell(Message::Reported { reported_bytes, pending }).await;

    let month = time.likely.hour().day().month();
    let request = StatementRequest {
        device: context.identity.device.clone(),
        month: month.to_string(),
        created_at: time.likely,
    };
    let signed = hub.statement(&Signed::new(&request, &context.identity.key)).await?;
    let statement = open_statement(&signed, &statement_keys, &request)
        .map_err(|e| UpstreamError::Statement(e.to_string()))?;
    context.contact(Topic::Reports, Ok(Some(statement.issued_at))).await;
    let known = context.stored(move |store| store.statement(month)).await?;
    let known = known.and_then(|known| open_statement(&known, &statement_keys, &request).ok());
    // Asked again and again, and mostly nothing is new: an idle device writes nothing.
    let issued_at = statement.issued_at;
    if known.map(|known| Statement { issued_at, ..known }).as_ref() != Some(&statement) {
        context.stored(move |store| store.save_statement(month, &signed)).await?;
    }
    context.tell(Message::Settled(statement)).await;
    Ok(())
}

async fn build_reports(
    context: &Context,
    now: UnixSeconds,
    listed: BTreeSet<Infohash>,
) -> Result<(), UpstreamError> {
    let identity = Arc::clone(&context.identity);
    let build = move |store: &Store| {
        let pinned = store.contents()?.into_iter().filter(|c| c.pinned).map(|c| c.infohash);
        let own = pinned.filter(|infohash| !listed.contains(infohash)).collect();
        while store.build_report(&identity.device, now, &identity.key, &own)?.is_some() {}
        store.prune(now.hour(), |infohash| own.contains(&infohash))
    };
    context.stored(build).await
}

/// A statement counts only if the policy's key signed it, for this device and this month.
pub fn open_statement(
    signed: &Signed,
    statement_keys: &[String],
    request: &StatementRequest,
) -> Result<Statement, SignedError> {
    let statement: Statement = signed.open(statement_keys)?;
    if statement.device != request.device || statement.month != request.month {
        return Err(SignedError::Malformed("it is about another device or month".into()));
    }
    Ok(statement)
}

/// What a tracker is told of a content.
pub struct Announcement {
    pub entry: Entry,
    pub event: AnnounceEvent,
    pub port: u16,
    pub uploaded: u64,
    pub held_bytes: u64,
}

pub async fn announce(context: Context, announcement: Announcement) {
    let Announcement { entry, event, port, uploaded, held_bytes } = announcement;
    let request = AnnounceRequest {
        infohash: entry.infohash,
        peer_id: context.identity.peer_id,
        port,
        uploaded,
        downloaded: held_bytes,
        left: entry.size_bytes.saturating_sub(held_bytes),
        event,
        tracker_tiers: &entry.tracker_tiers,
    };
    match upstream::announce(&context.outbound, &request).await {
        Ok(answer) => {
            if event != AnnounceEvent::None {
                tracing::info!(infohash = %entry.infohash, ?event, port, "announced");
            }
            let (infohash, interval) = (entry.infohash, answer.interval);
            if !answer.peers.is_empty() {
                context.tell(Message::Named { infohash, leechers: answer.peers }).await;
            }
            context.event(Event::Announced { infohash, interval }).await;
        }
        Err(error) => {
            tracing::warn!(infohash = %entry.infohash, "announce failed: {error}");
            context.event(Event::AnnounceFailed(entry.infohash)).await;
        }
    }
}
