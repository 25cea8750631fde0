//! A short soak: many clients, some of which leave. `cargo bench --bench soak` is the long one.

#[path = "common/soak.rs"]
mod soak;

use pensieve::engine::Options;
use pensieve::mlx::Device;

#[test]
fn many_clients_get_right_answers_and_leave_nothing_behind() {
    let plan = soak::Plan {
        requests: 200,
        clients: 16,
        dropped_percent: 20,
    };
    let options = Options {
        device: Some(Device::Cpu),
        // Fewer than clients, so that some are told to come again.
        queue_limit: 6,
        ..Options::default()
    };
    let outcome = soak::run(plan, options);
    assert!(
        outcome.dropped > 20 && outcome.completed > 100,
        "{outcome:?}"
    );
    assert!(outcome.busy > 0, "{outcome:?}");
    assert!(outcome.json()["peak_bytes"].as_u64() > Some(outcome.before as u64));
}
