//! Auto mode's wiring: the gateway's thread sees the serving engine through this, and the daemon's event
//! loop hands it the ceiling of all other rules and the places to probe. Decides nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use tokio::{net::lookup_host, sync::mpsc};
use url::Url;

use super::{
    gateway::{Destinations, Gateway, Served, Serving, Settings, View, WanInterface},
    message::Message,
    serve::{Allowance, Engine, Remote, ServeCommand},
};
use crate::{config::device::DeviceConfig, logic::governor::allowance};

pub struct Auto {
    gateway: Gateway,
    /// The destinations that were asked for last, as written.
    asked: Option<(Option<Url>, Option<String>)>,
}

impl Auto {
    pub fn start(config: &DeviceConfig, engine: &Engine) -> io::Result<Auto> {
        let settings = Settings {
            wan_interface: wan_interface(config),
            unmeasured_bytes_per_second: config.serve.egress().unmeasured_bytes_per_second,
        };
        let gateway = Gateway::start(settings, EngineView(engine.remote()))?;
        engine.send(ServeCommand::Measure { alarm: Box::new(gateway.alarm()) });
        Ok(Auto { gateway, asked: None })
    }

    pub fn set_ceiling(&self, ceiling: Allowance) {
        self.gateway.set_ceiling(ceiling);
    }

    pub fn set_destinations(&self, destinations: Destinations) {
        self.gateway.set_destinations(destinations);
    }

    /// Finds the addresses of the hub and its reflector, if they are not the ones that were looked up
    /// before; they come back as a message.
    pub fn look_up(
        &mut self,
        hub: Option<&Url>,
        reflector: Option<&str>,
        messages: &mpsc::Sender<Message>,
    ) {
        let wanted = (hub.cloned(), reflector.map(ToOwned::to_owned));
        if self.asked.as_ref() == Some(&wanted) {
            return;
        }
        self.asked = Some(wanted.clone());
        let messages = messages.clone();
        tokio::spawn(async move {
            let destinations = resolve(wanted.0, wanted.1).await;
            let _ = messages.send(Message::Destinations(destinations)).await;
        });
    }

    pub fn view(&self) -> View {
        self.gateway.view()
    }
}

pub fn wan_interface(config: &DeviceConfig) -> WanInterface {
    match config.serve.wan_interface.as_str() {
        "auto" => WanInterface::Find,
        "none" => WanInterface::None,
        name => WanInterface::Named(name.to_owned()),
    }
}

/// For the rules and for people; `None` while auto mode cannot measure.
pub fn ruling(view: &View) -> Option<allowance::Auto> {
    view.bytes_per_second.map(|egress_bytes_per_second| allowance::Auto {
        egress_bytes_per_second,
        line_bytes_per_second: view.line_bytes_per_second,
        gives_way: view.gives_way,
    })
}

/// A name that does not resolve is nobody to ask; routers on the way to peers are asked first anyway.
async fn resolve(hub: Option<Url>, reflector: Option<String>) -> Destinations {
    let tcp = match &hub {
        Some(url) => {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            first(lookup_host((host, url.port_or_known_default().unwrap_or(443))).await)
        }
        None => None,
    };
    let reflector = match reflector {
        Some(address) => first(lookup_host(address).await),
        None => None,
    };
    Destinations { towards: tcp.map(|address| address.ip()), reflector, tcp }
}

/// IPv4 where there is a choice: more routers answer there.
fn first(found: io::Result<impl Iterator<Item = SocketAddr>>) -> Option<SocketAddr> {
    found.ok()?.min_by_key(SocketAddr::is_ipv6)
}

struct EngineView(Remote);

impl Serving for EngineView {
    fn served(&self) -> Served {
        match self.0.measured() {
            Some(measured) => Served {
                measured_at: measured.at,
                acknowledged_bytes_total: measured.acknowledged_wire_bytes_total,
                sent_bytes_total: measured.sent_wire_bytes_total,
                peers_want_more: measured.peers_want_more,
                peers_unchoked: measured.peers_unchoked,
                peer: measured.peer,
            },
            None => Served {
                measured_at: Instant::now(),
                acknowledged_bytes_total: 0,
                sent_bytes_total: 0,
                peers_want_more: false,
                peers_unchoked: 0,
                peer: None::<IpAddr>,
            },
        }
    }

    fn set_allowance(&self, allowance: Allowance) {
        self.0.send(ServeCommand::SetAllowance(allowance));
    }
}
