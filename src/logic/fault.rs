//! Whose problem an error is. Adapters say it about every error, so that the owner's page can say
//! whether there is anything to do, and nobody has to match on text.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A BitTorrent peer broke the protocol or sent something wrong.
    Peer,
    /// This device: its disk, its configuration, its system.
    Local,
    /// The operator: its list, its web seed, its hub.
    Operator,
    /// The way between; waiting usually helps.
    Network,
}
