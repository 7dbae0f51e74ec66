//! Auto mode's senses behind a real router: whom it probes, what it falls back to, and what it says when
//! nobody answers.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
    time::Instant,
};

use larder::{
    device::gateway::{Destinations, Gateway, Served, Serving, Settings, View, WanInterface},
    logic::governor::Allowance,
};

use crate::{
    harness::{Running, spawn, wait_for},
    world::{PROVIDER, PROVIDER_V6, WORLD, WORLD_V6, World, role},
};

const UNMEASURED: u64 = 777_000;
const HUB_PORT: u16 = 7070;
const REFLECTOR_PORT: u16 = 7071;

/// An engine with a peer that wants more, which never gets anything.
#[derive(Clone, Default)]
struct Engine(Arc<Mutex<Option<Allowance>>>);

impl Serving for Engine {
    fn served(&self) -> Served {
        Served {
            measured_at: Instant::now(),
            acknowledged_bytes_total: 0,
            sent_bytes_total: 0,
            peers_want_more: true,
            peers_unchoked: 1,
            peer: Some(address(WORLD)),
        }
    }

    fn set_allowance(&self, allowance: Allowance) {
        *self.0.lock().expect("no panic") = Some(allowance);
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn gateway(destinations: Destinations) -> (Gateway, Engine) {
    let engine = Engine::default();
    let settings =
        Settings { wan_interface: WanInterface::Find, unmeasured_bytes_per_second: UNMEASURED };
    let gateway = Gateway::start(settings, engine.clone()).expect("starts");
    gateway.set_destinations(destinations);
    gateway.set_ceiling(Allowance::Unlimited);
    (gateway, engine)
}

fn wait_for_target(gateway: &Gateway, wanted: &str) -> View {
    wait_for(&format!("the target {wanted:?}"), || {
        let view = gateway.view();
        assert_eq!(view.problem, None);
        Some(view).filter(|view| view.target.as_deref() == Some(wanted))
    })
}

fn towards(text: &str) -> Destinations {
    Destinations { towards: Some(address(text)), ..Destinations::default() }
}

#[test]
fn probes_the_first_router_beyond_the_homes() {
    if role().is_none() {
        return World::new().run_on_device("gateway::probes_the_first_router_beyond_the_homes");
    }
    let (gateway, _) = gateway(Destinations::default());
    wait_for_target(&gateway, &format!("router {PROVIDER} (ICMP)"));
    gateway.set_ceiling(Allowance::Paused);
}

#[test]
fn needs_no_privilege_where_the_system_permits_ping() {
    if role().is_none() {
        let home = World::new();
        home.sysctl("device", "net.ipv4.ping_group_range=0 2147483647");
        return home.run_on_device("gateway::needs_no_privilege_where_the_system_permits_ping");
    }
    // Without the capability for raw sockets only the unprivileged way is left.
    let status = Command::new("setpriv")
        .args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"])
        .arg(std::env::current_exe().expect("has a path"))
        .args(["--exact", "gateway::probes_the_first_router_beyond_the_homes", "--nocapture"])
        .status();
    assert!(status.expect("util-linux is installed").success());
}

#[test]
fn probes_over_ipv6_as_well() {
    if role().is_none() {
        return World::new().run_on_device("gateway::probes_over_ipv6_as_well");
    }
    let (gateway, _) = gateway(towards(WORLD_V6));
    wait_for_target(&gateway, &format!("router {PROVIDER_V6} (ICMP)"));
}

#[test]
fn falls_back_to_the_hubs_reflector_and_then_to_tcp() {
    const TEST: &str = "gateway::falls_back_to_the_hubs_reflector_and_then_to_tcp";
    let folder = std::env::temp_dir().join(format!("larder-e2e-{}", std::process::id()));
    match role().as_deref() {
        None => {
            let home = World::new();
            home.silence_pings();
            let hub = format!("{}@{}", home.namespace("world"), folder.display());
            fs::create_dir_all(&folder).expect("creates");
            let status = home.again("device", TEST, "device").env("LARDER_E2E_HUB", hub).status();
            let removed = fs::remove_dir_all(&folder);
            assert!(status.expect("runs").success(), "what ran inside has failed: see above");
            removed.expect("removes");
        }
        Some(_) => {
            let mut hub = start_hub();
            let hub_address = |port| SocketAddr::new(address(WORLD), port);
            let reflector = hub_address(REFLECTOR_PORT);
            let tcp = hub_address(HUB_PORT);
            let destinations =
                Destinations { reflector: Some(reflector), tcp: Some(tcp), ..towards(WORLD) };
            let (gateway, _) = gateway(destinations);
            wait_for_target(&gateway, &format!("the hub's reflector {reflector} (UDP)"));
            // Its machine still says that nobody listens, which takes a round trip as well.
            hub.kill();
            wait_for_target(&gateway, &format!("the hub at {tcp} (TCP)"));
        }
    }
}

/// In the world, from the device's place: `namespace@folder`.
fn start_hub() -> Running {
    let place = std::env::var("LARDER_E2E_HUB").expect("was set");
    let (namespace, folder) = place.split_once('@').expect("has both");
    let config = format!("{folder}/hub.toml");
    let text = format!(
        "data_dir = \"{folder}/hub\"\nlisten = \"{WORLD}:{HUB_PORT}\"\n\
         public_url = \"http://{WORLD}:{HUB_PORT}/\"\n\
         [reflector]\nlisten = \"{WORLD}:{REFLECTOR_PORT}\"\n"
    );
    fs::write(&config, text).expect("writes");
    let hub = |action: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_larder-hub"), action]);
        command.args(["--config", &config]);
        command
    };
    assert!(hub("init").output().expect("runs").status.success());
    let running = spawn(&mut hub("run"), format!("{folder}/hub.log").as_ref());
    let endpoints = format!("{folder}/hub/endpoints.json");
    wait_for("the hub", || fs::exists(&endpoints).ok().filter(|is_there| *is_there));
    running
}

#[test]
fn says_what_to_do_when_nobody_answers_and_keeps_to_the_fixed_limit() {
    if role().is_none() {
        let home = World::new();
        home.silence_pings();
        return home.run_on_device(
            "gateway::says_what_to_do_when_nobody_answers_and_keeps_to_the_fixed_limit",
        );
    }
    let (gateway, engine) = gateway(towards(WORLD));
    let problem = wait_for("a problem", || gateway.view().problem);
    assert!(problem.contains("auto mode cannot measure the line"), "{problem}");
    assert!(problem.contains("CAP_NET_RAW") && problem.contains("serve.mode"), "{problem}");
    wait_for("the fixed limit", || {
        let told = *engine.0.lock().expect("no panic");
        (told == Some(Allowance::BytesPerSecond(UNMEASURED))).then_some(())
    });
    gateway.set_ceiling(Allowance::BytesPerSecond(5_000));
    wait_for("the lower limit of the other rules", || {
        let told = *engine.0.lock().expect("no panic");
        (told == Some(Allowance::BytesPerSecond(5_000))).then_some(())
    });
}
