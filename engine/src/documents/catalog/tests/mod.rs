//! Documents as Consul writes them, and the laws that blocking queries live by.

mod documents;
mod laws;

use std::collections::BTreeSet;

use wire::{Index, Term};

use super::{About, CatalogQuestion, Instances, Narrow};
use crate::{
    documents::subjects::touched,
    fsm::{Fsm, Outcome, catalog::RegisterRequest, records::RecordOp},
    state::records::{Check, Service},
};

/// Carries out a command; the subjects that it touched.
fn apply(fsm: &mut Fsm, op: RecordOp) -> BTreeSet<Vec<u8>> {
    let index = Index(fsm.applied().0.0 + 1);
    let (mut outcomes, mut subjects) = (Vec::new(), BTreeSet::new());
    fsm.apply_run_watched(
        &[(index, Term(1), op.encode())],
        &mut outcomes,
        Some(&mut |_, changes| {
            for change in changes {
                touched(change, &mut |subject| {
                    subjects.insert(subject.as_bytes().to_vec());
                });
            }
        }),
    )
    .expect("a known command");
    assert!(matches!(
        outcomes[..],
        [Outcome::Done { .. } | Outcome::Refused(_)]
    ));
    subjects
}

fn node(name: &str) -> RegisterRequest {
    RegisterRequest {
        node: name.into(),
        address: "10.0.0.1".into(),
        datacenter: "dc1".into(),
        ..RegisterRequest::default()
    }
}

fn with_service(request: RegisterRequest, id: &str, name: &str, tags: &[&str]) -> RegisterRequest {
    RegisterRequest {
        service: Some(Service {
            id: id.into(),
            service: name.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Service::default()
        }),
        ..request
    }
}

fn with_check(request: RegisterRequest, id: &str, service: &str, status: &str) -> RegisterRequest {
    RegisterRequest {
        check: Some(Check {
            check_id: id.into(),
            service_id: service.into(),
            status: status.into(),
            ..Check::default()
        }),
        ..request
    }
}

fn ask(about: About) -> CatalogQuestion {
    CatalogQuestion {
        about,
        narrow: Narrow::default(),
    }
}

fn service(name: &str) -> Instances {
    Instances {
        service: name.into(),
        ..Instances::default()
    }
}

fn uuid() -> String {
    wire::Uuid([7; 16]).to_string()
}
