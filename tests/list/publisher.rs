//! An operator's repository, written by hand so that every part of it can be wrong. Signs whatever it is
//! told to sign.

use std::{collections::BTreeMap, rc::Rc};

use aws_lc_rs::{
    digest,
    signature::{Ed25519KeyPair, KeyPair},
};
use data_encoding::HEXLOWER;
use larder::logic::now::UnixSeconds;
use serde_json::{Value, json};

/// What the tests take for the present: 2026-11-21.
pub const NOW: UnixSeconds = UnixSeconds(1_795_219_200);
pub const NEXT_YEAR: &str = "2027-11-21T00:00:00Z";
pub const LAST_YEAR: &str = "2025-11-21T00:00:00Z";

pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[derive(Clone)]
pub struct Key(Rc<Ed25519KeyPair>);

impl Key {
    pub fn new(seed: u8) -> Key {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes");
        Key(Rc::new(pair))
    }

    pub fn public(&self) -> Value {
        let public = HEXLOWER.encode(self.0.public_key().as_ref());
        json!({"keytype": "ed25519", "keyval": {"public": public}, "scheme": "ed25519"})
    }

    pub fn id(&self) -> String {
        sha256(&canonical(&self.public()))
    }

    pub fn signature(&self, signed: &Value) -> Value {
        let signature = self.0.sign(&canonical(signed));
        json!({"keyid": self.id(), "sig": HEXLOWER.encode(signature.as_ref())})
    }
}

/// Sorted and without spaces, which for plain text and whole numbers is the canonical form.
fn canonical(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value serialises")
}

pub fn sign(signed: &Value, keys: &[Key]) -> Vec<u8> {
    let signatures: Vec<Value> = keys.iter().map(|key| key.signature(signed)).collect();
    canonical(&json!({"signed": signed, "signatures": signatures}))
}

/// Who signs what, and how many of them must.
#[derive(Clone)]
pub struct Roles {
    pub root: Vec<Key>,
    pub targets: Vec<Key>,
    pub snapshot: Vec<Key>,
    pub timestamp: Vec<Key>,
    pub threshold: u64,
}

impl Roles {
    pub fn new(seed: u8) -> Roles {
        let key = |n| vec![Key::new(seed + n)];
        Roles { root: key(0), targets: key(1), snapshot: key(2), timestamp: key(3), threshold: 1 }
    }

    fn of(&self, role: &str) -> &[Key] {
        match role {
            "root" => &self.root,
            "targets" => &self.targets,
            "snapshot" => &self.snapshot,
            _ => &self.timestamp,
        }
    }

    pub fn document(&self, version: u64) -> Value {
        let all = [&self.root, &self.targets, &self.snapshot, &self.timestamp];
        let keys: BTreeMap<String, Value> =
            all.into_iter().flatten().map(|key| (key.id(), key.public())).collect();
        let role = |name: &str| {
            let ids: Vec<String> = self.of(name).iter().map(Key::id).collect();
            (name.to_owned(), json!({"keyids": ids, "threshold": self.threshold}))
        };
        let roles: BTreeMap<String, Value> =
            ["root", "targets", "snapshot", "timestamp"].map(role).into();
        json!({
            "_type": "root", "spec_version": "1.0.0", "consistent_snapshot": true,
            "version": version, "expires": NEXT_YEAR, "keys": keys, "roles": roles,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub targets: u64,
    pub snapshot: u64,
    pub timestamp: u64,
}

/// The files that a web server would carry, by path below `tuf/`.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone)]
pub struct Publisher {
    pub roles: Roles,
    pub versions: Versions,
    pub files: Files,
    root_version: u64,
}

impl Publisher {
    /// With its first root, and epoch 1 without entries.
    pub fn new() -> Publisher {
        let roles = Roles::new(10);
        let root = sign(&roles.document(1), &roles.root);
        let mut publisher = Publisher {
            roles,
            versions: Versions::default(),
            files: [("metadata/1.root.json".into(), root)].into(),
            root_version: 1,
        };
        publisher.publish(1);
        publisher
    }

    pub fn first_root(&self) -> Vec<u8> {
        self.files["metadata/1.root.json"].clone()
    }

    pub fn publish(&mut self, epoch: u64) {
        self.publish_bent(epoch, |_, _| {});
    }

    /// Publishes an empty list of this epoch, but `bend` has the last word on each document before it
    /// is signed, and before others vouch for it.
    pub fn publish_bent(&mut self, epoch: u64, bend: impl FnMut(&str, &mut Value)) {
        let list = json!({"format": 1, "epoch": epoch, "published_at": NOW.0 - 60, "entries": []});
        self.publish_list(&canonical(&list), bend);
    }

    pub fn publish_list(&mut self, list: &[u8], mut bend: impl FnMut(&str, &mut Value)) {
        let policy = canonical(&json!({
            "format": 1, "currency": "CNY", "price_per_gb": {"standard": 100_000},
            "list_interval_seconds": 50, "report_interval_seconds": 900, "statement_keys": [],
        }));
        let mut described = BTreeMap::new();
        for (name, bytes) in [("hotlist.json", list), ("policy.json", &policy)] {
            let hash = sha256(bytes);
            self.files.insert(format!("targets/{hash}.{name}"), bytes.to_vec());
            described.insert(name, json!({"length": bytes.len(), "hashes": {"sha256": hash}}));
        }
        self.versions.targets += 1;
        let mut targets = document("targets", self.versions.targets);
        targets["targets"] = json!(described);
        bend("targets", &mut targets);
        let targets = self.write("targets", &targets);
        self.versions.snapshot += 1;
        let mut snapshot = document("snapshot", self.versions.snapshot);
        snapshot["meta"] = json!({"targets.json": meta(&targets, self.versions.targets)});
        bend("snapshot", &mut snapshot);
        let snapshot = self.write("snapshot", &snapshot);
        self.versions.timestamp += 1;
        let mut timestamp = document("timestamp", self.versions.timestamp);
        timestamp["meta"] = json!({"snapshot.json": meta(&snapshot, self.versions.snapshot)});
        bend("timestamp", &mut timestamp);
        self.files
            .insert("metadata/timestamp.json".into(), sign(&timestamp, &self.roles.timestamp));
    }

    /// A root signed by the old keys and the new ones.
    pub fn rotate(&mut self, roles: Roles) {
        self.root_version += 1;
        let signers = [self.roles.root.clone(), roles.root.clone()].concat();
        // Once each, where they have not changed.
        let by_id: BTreeMap<String, Key> = signers.into_iter().map(|k| (k.id(), k)).collect();
        let signers: Vec<Key> = by_id.into_values().collect();
        let root = sign(&roles.document(self.root_version), &signers);
        self.files.insert(format!("metadata/{}.root.json", self.root_version), root);
        self.roles = roles;
    }

    pub fn timestamp(&mut self) -> &mut Vec<u8> {
        self.files.get_mut("metadata/timestamp.json").expect("is published")
    }

    pub fn newest(&self, role: &str) -> String {
        let version = match role {
            "targets" => self.versions.targets,
            _ => self.versions.snapshot,
        };
        format!("metadata/{version}.{role}.json")
    }

    /// Where the newest list lies.
    pub fn list_path(&self) -> String {
        let targets: Value =
            serde_json::from_slice(&self.files[&self.newest("targets")]).expect("JSON");
        let hash = &targets["signed"]["targets"]["hotlist.json"]["hashes"]["sha256"];
        format!("targets/{}.hotlist.json", hash.as_str().expect("a hash"))
    }

    fn write(&mut self, role: &str, signed: &Value) -> Vec<u8> {
        let bytes = sign(signed, self.roles.of(role));
        self.files.insert(self.newest(role), bytes.clone());
        bytes
    }
}

fn document(role: &str, version: u64) -> Value {
    json!({"_type": role, "spec_version": "1.0.0", "version": version, "expires": NEXT_YEAR})
}

fn meta(bytes: &[u8], version: u64) -> Value {
    json!({"length": bytes.len(), "hashes": {"sha256": sha256(bytes)}, "version": version})
}
