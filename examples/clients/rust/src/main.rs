//! Computes attention with tonic: attend ADDRESS MODEL INPUT OUTPUT (see the README one folder up).
use prost::Message;
use std::{env, error::Error, fs, process, time::Duration};

tonic::include_proto!("attnd.v1");

const HEADS: usize = 8;
const LENGTH: usize = 2048;
const DIM: usize = 64;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [address, model, input, output] = env::args().skip(1).collect::<Vec<_>>().try_into().expect("four arguments");
    let tensors = fs::read(input)?;
    let tensor = |i: usize| tensors.chunks_exact(HEADS * LENGTH * DIM * 4).nth(i).expect("q, k and v").to_vec();
    let (heads, length, dim) = (HEADS as i64, LENGTH as i64, DIM as i64);
    let mut request = tonic::Request::new(ComputeAttentionRequest {
        model, batch: 1, heads, query_length: length, key_length: length, head_dim: dim,
        dtype: Dtype::Fp32 as i32, q: tensor(0), k: tensor(1), v: tensor(2), ..Default::default()
    });
    request.set_timeout(Duration::from_secs(30));
    // The reply is 89 bytes over the 4 MiB that tonic receives by default.
    let client = attention_service_client::AttentionServiceClient::connect(format!("http://{address}")).await?;
    match client.max_decoding_message_size(64 << 20).compute_attention(request).await {
        Ok(reply) => Ok(fs::write(output, reply.into_inner().output)?),
        Err(status) => {
            eprintln!("{:?}: {}", status.code(), status.message());
            for any in tonic_types::pb::Status::decode(status.details())?.details {
                if any.type_url.ends_with("/attnd.v1.ErrorDetail") {
                    let ErrorDetail { field, expected, got } = ErrorDetail::decode(&any.value[..])?;
                    eprintln!("  field {field}: expected {expected}, got {got}");
                }
            }
            process::exit(1)
        }
    }
}
