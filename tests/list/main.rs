//! Attacks on the operator's repository, over real HTTP against the real `ListRepository`: who signs
//! wrongly, who shows old things, who sends without end or hardly at all, and who lies about what has
//! changed. What is refused gets one sentence, and the next honest list is followed.

mod endless;
mod publisher;
mod rollback;
mod roots;
mod tampering;
mod waiting;
mod web;
