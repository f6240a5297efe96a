//! The gRPC service of a standby: it says who it is; what only a primary can do is refused by name.

use std::net::TcpListener;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use towline_base::{NodeId, SystemId};
use towline_proto::replication as pb;
use towline_proto::replication::replication_server::{Replication, ReplicationServer};
use towline_proto::transport::{self, Secret};
use towline_standby::StandbyView;

use crate::config::NodeConfig;
use crate::refusal::{Outcome, Refusal};

/// HTTP/2 pings, as on a primary.
const KEEPALIVE: Duration = Duration::from_secs(10);

struct StandbyService {
    node: NodeId,
    system: SystemId,
    view: StandbyView,
    secret: Secret,
}

/// Starts serving on the runtime, for as long as the process lives.
pub(crate) fn start(
    listener: TcpListener,
    runtime: &Handle,
    node: &NodeId,
    system: SystemId,
    view: StandbyView,
    config: &NodeConfig,
) -> Outcome {
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|error| Refusal::failed(format!("could not serve gRPC: {error}.")))?;
    let service = StandbyService {
        node: node.clone(),
        system,
        view,
        secret: config.secret.clone(),
    };
    let service = ReplicationServer::new(service).max_decoding_message_size(transport::MESSAGE_LIMIT);
    runtime.spawn(async move {
        let server = transport::server(KEEPALIVE).add_service(service);
        if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
            tracing::error!("the gRPC service failed: {error}");
        }
    });
    Ok(())
}

impl StandbyService {
    fn refuse<T>(&self, request: &Request<T>) -> Status {
        match self.secret.check(request) {
            Err(status) => status,
            Ok(()) => Status::failed_precondition("this node is a standby; ask the primary"),
        }
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for StandbyService {
    type StartReplicationStream = BoxStream<pb::PrimaryMessage>;
    type BaseBackupStream = BoxStream<pb::BackupMessage>;

    async fn identify(
        &self,
        request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyResponse>, Status> {
        self.secret.check(&request)?;
        Ok(Response::new(pb::IdentifyResponse {
            system_id: self.system.0,
            node: Some((&self.node).into()),
            timeline: Some(self.view.timeline().into()),
            flush: self.view.last_receive_lsn().0,
            quorum: self.view.last_replay_lsn().0,
            role: "standby".to_owned(),
            ..pb::IdentifyResponse::default()
        }))
    }

    async fn start_replication(
        &self,
        request: Request<Streaming<pb::StandbyMessage>>,
    ) -> Result<Response<Self::StartReplicationStream>, Status> {
        Err(self.refuse(&request))
    }

    async fn base_backup(
        &self,
        request: Request<pb::BaseBackupRequest>,
    ) -> Result<Response<Self::BaseBackupStream>, Status> {
        Err(self.refuse(&request))
    }

    async fn timeline_history(
        &self,
        request: Request<pb::TimelineHistoryRequest>,
    ) -> Result<Response<pb::TimelineHistoryResponse>, Status> {
        Err(self.refuse(&request))
    }

    async fn create_slot(
        &self,
        request: Request<pb::CreateSlotRequest>,
    ) -> Result<Response<pb::CreateSlotResponse>, Status> {
        Err(self.refuse(&request))
    }

    async fn drop_slot(
        &self,
        request: Request<pb::DropSlotRequest>,
    ) -> Result<Response<pb::DropSlotResponse>, Status> {
        Err(self.refuse(&request))
    }
}
