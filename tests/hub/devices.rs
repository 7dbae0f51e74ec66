//! Enrolment and who a device is.

use data_encoding::HEXLOWER;
use larder::api::{
    hub::{DeviceRow, EnrolRequest, EnrolResponse, StatementRequest},
    signed::Signed,
};

use crate::harness::{Device, Hub, claim_code, code, now};

#[tokio::test]
async fn a_claim_code_enrols_one_device() {
    let hub = Hub::start().await;
    let code_text = claim_code(&hub).await;
    let device = Device::new(1);
    let enrolled = device.enrol(&hub, &code_text.to_lowercase()).await.expect("enrols");
    let public = HEXLOWER.decode(device.key.public_hex().as_bytes()).expect("hex");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &public);
    assert_eq!(enrolled.device, HEXLOWER.encode(&digest.as_ref()[..16]));
    assert!(enrolled.server_time.0.abs_diff(now().0) < 60);
    let again = device.enrol(&hub, "any code").await.expect("the same device is let in again");
    assert_eq!(again.device, enrolled.device);

    let second = Device::new(2);
    let refused = second.enrol(&hub, &code_text).await;
    assert_eq!(code(refused), (403, "unknown_claim_code".into()));
    let imitator = Device::new(1);
    let refused = imitator.enrol(&hub, &claim_code(&hub).await).await;
    assert_eq!(code(refused), (409, "peer_id_taken".into()));
    let rows: Vec<DeviceRow> = hub.ask("devices").await.expect("answers");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].reports, rows[0].last_report_at), (0, None));
}

#[tokio::test]
async fn refuses_forged_and_stale_requests() {
    let hub = Hub::start().await;
    let device = Device::enrolled(&hub, 1).await;
    let request =
        StatementRequest { device: device.id.clone(), month: "2026-11".into(), created_at: now() };
    let good = device.sign(&request);
    hub.tell_as::<Signed>("", "statement", &good).await.expect("answers");

    let tampered = Signed { payload: good.payload.replace("2026-11", "2026-10"), ..good.clone() };
    let answer = hub.tell_as::<Signed>("", "statement", &tampered).await;
    assert_eq!(code(answer), (401, "bad_signature".into()));
    let other = Device::enrolled(&hub, 2).await;
    let answer = hub.tell_as::<Signed>("", "statement", &other.sign(&request)).await;
    assert_eq!(code(answer), (401, "wrong_device".into()));

    for off in [-3600, 3600] {
        let mut stale = request.clone();
        stale.created_at.0 = stale.created_at.0.saturating_add_signed(off);
        let answer = hub.tell_as::<Signed>("", "statement", &device.sign(&stale)).await;
        let (status, error) = answer.expect_err("refused");
        assert_eq!((status, error.code.as_str()), (422, "clock_skew"));
        let told: Vec<u64> = error
            .message
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .collect();
        assert!(told.iter().any(|t| t.abs_diff(now().0) < 60), "{}", error.message);
    }
    let nonsense = EnrolRequest { claim_code: "x".into(), peer_id: "zz".into(), created_at: now() };
    let answer = hub.tell_as::<EnrolResponse>("", "enrol", &device.sign(&nonsense)).await;
    assert_eq!(code(answer), (400, "bad_request".into()));
    let request = StatementRequest { month: "2026-13".into(), ..request };
    let answer = hub.tell_as::<Signed>("", "statement", &device.sign(&request)).await;
    assert_eq!(code(answer), (400, "bad_request".into()));
    let huge = "x".repeat(100_000);
    let answer = hub.tell_as::<Signed>("", "statement", &huge).await;
    assert_eq!(code(answer), (413, "body_too_large".into()));
}
