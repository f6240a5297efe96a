//! Asking a node who it is and where its log stands, over gRPC: for `up` and `status`, which know no password of the node's SQL users.

use std::net::SocketAddr;
use std::time::Duration;

use towline_proto::replication::replication_client::ReplicationClient;
use towline_proto::replication::{IdentifyRequest, IdentifyResponse};
use towline_proto::transport::{self, Secret, ShowSecret};

/// What the node at this gRPC address says of itself. Blocks, for `timeout` at most.
///
/// # Errors
/// One sentence: it cannot be reached, or the secret is not the cluster's.
pub(crate) fn identify(
    address: SocketAddr,
    secret: Secret,
    timeout: Duration,
) -> Result<IdentifyResponse, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let asking = async {
        let endpoint = transport::endpoint(&format!("http://{address}"), timeout, timeout);
        let channel = endpoint.map_err(|error| error.to_string())?.connect().await;
        let channel = channel.map_err(|error| error.to_string())?;
        let mut client = ReplicationClient::with_interceptor(channel, ShowSecret(secret));
        let answer = client.identify(IdentifyRequest {}).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    };
    let answer = runtime.block_on(async { tokio::time::timeout(timeout, asking).await });
    answer.map_err(|_| "no answer in time".to_owned())?
}
