//! The one way to servers that the operator's documents name: metainfo, web seeds, trackers. It holds
//! `logic::reach` against the address of every connection, also when a name changes its mind between
//! two look-ups, because what was checked is what is connected to. Redirects are not followed here.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::RwLock;
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::Url;

use crate::logic::{
    governor::Prefix,
    reach::{Reach, Refused, Way},
};

/// An operator's server that has not begun to answer by then will not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole exchange, unless the request says otherwise.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two ranges a connection is kept, between two fills it is not.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("larderd/", env!("CARGO_PKG_VERSION"));

/// Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    reach: Arc<RwLock<Reach>>,
    /// For the hub, which the owner has named.
    hub: Client,
    guarded: Client,
}

impl Outbound {
    /// `hub` may be any client that follows no redirects.
    ///
    /// # Errors
    /// When no HTTP client can be made at all.
    pub fn new(hub: Client, reach: Reach) -> reqwest::Result<Outbound> {
        let reach = Arc::new(RwLock::new(reach));
        let builder = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(EXCHANGE_TIMEOUT)
                .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                .redirect(redirect::Policy::none())
                // A proxy would connect in our place, to whatever address it likes.
                .no_proxy()
                .dns_resolver(Arc::new(GuardedResolver(reach.clone())))
        };
        // Without a CA bundle on the system the first attempt fails. Plain HTTP must work all the same
        // (every byte is checked by hash); HTTPS will then say that it trusts nobody.
        let guarded = builder().build().or_else(|_| builder().tls_certs_only([]).build())?;
        Ok(Outbound { reach, hub, guarded })
    }

    /// What the policy in force allows beyond the public internet.
    pub fn set_private(&self, networks: Vec<Prefix>) {
        self.reach.write().set_private(networks);
    }

    /// Whom to ask for this URL.
    pub fn client(&self, url: &Url) -> Result<&Client, Refused> {
        Ok(self.by(self.reach.read().way(url)?))
    }

    /// The same after a redirect; `hops` counts them, this one included.
    pub fn redirected(&self, from: &Url, to: &Url, hops: usize) -> Result<&Client, Refused> {
        Ok(self.by(self.reach.read().redirect(from, to, hops)?))
    }

    fn by(&self, way: Way) -> &Client {
        match way {
            Way::Guarded => &self.guarded,
            Way::Hub => &self.hub,
        }
    }
}

/// Why a request failed, if it was our own refusal to connect.
pub fn refusal(error: &reqwest::Error) -> Option<Refused> {
    let mut cause: &dyn Error = error;
    loop {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return Some(refused.clone());
        }
        cause = cause.source()?;
    }
}

/// Gives names only those of their addresses that may be connected to. Addresses written out never
/// come here: [`Reach::way`] has judged them.
struct GuardedResolver(Arc<RwLock<Reach>>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted = permitted(&reach.read(), name.as_str(), found)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

fn permitted(
    reach: &Reach,
    name: &str,
    found: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Refused> {
    let first = found.first().map(SocketAddr::ip);
    let permitted: Vec<_> = found.into_iter().filter(|a| reach.permits(a.ip())).collect();
    match first {
        Some(address) if permitted.is_empty() => {
            Err(Refused::Private { host: name.to_owned(), address })
        }
        _ => Ok(permitted),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn outbound(hub: Option<&str>) -> Outbound {
        let hub = hub.map(|url| url.parse().expect("a URL"));
        Outbound::new(Client::new(), Reach::new(hub)).expect("a client")
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_not_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        // The hub's host by another port: its name may be looked up, but not to get anywhere.
        let outbound = outbound(Some("http://localhost:1/"));
        let url: Url = format!("http://localhost:{port}/x").parse().expect("a URL");
        let client = outbound.client(&url).expect("a name may be looked up");
        let error = client.get(url).send().await.expect_err("refused");
        let refused = refusal(&error).expect("by us");
        assert!(matches!(&refused, Refused::Private { host, .. } if host == "localhost"));
        assert!(refused.to_string().contains("private_web_seeds"), "{refused}");
    }

    #[test]
    fn takes_only_the_public_addresses_of_a_name_that_has_both() {
        let addresses = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|a| a.parse().expect("an address")).collect()
        };
        let (both, public) = (["192.168.1.1:0", "8.8.8.8:0", "[fe80::1]:0"], ["8.8.8.8:0"]);
        let reach = Reach::default();
        assert_eq!(permitted(&reach, "x", addresses(&both)), Ok(addresses(&public)));
        assert_eq!(permitted(&reach, "x", vec![]), Ok(vec![]));
        assert!(permitted(&reach, "x", addresses(&["[::ffff:10.0.0.1]:0"])).is_err());
    }
}
