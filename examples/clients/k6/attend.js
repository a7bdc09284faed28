// Computes attention with k6, which writes no files: this prints the output's first values and its SHA-256.
//   k6 run -e ADDRESS=127.0.0.1:50051 -e MODEL=t5-tiny -e INPUT=/absolute/path attend.js
import { sha256 } from 'k6/crypto';
import { b64decode, b64encode } from 'k6/encoding';
import exec from 'k6/execution';
import grpc from 'k6/net/grpc';

const [heads, length, dim] = [8, 2048, 64];
const size = heads * length * dim * 4;
const tensors = open(__ENV.INPUT, 'b');
const [q, k, v] = [0, 1, 2].map((i) => b64encode(tensors.slice(i * size, (i + 1) * size)));
const client = new grpc.Client();
client.load(['../../../proto'], 'attnd/v1/attention.proto');

export default function () {
  // The reply is 89 bytes over the 4 MiB that k6 receives by default.
  client.connect(__ENV.ADDRESS, { plaintext: true, maxReceiveSize: 64 << 20 });
  const request = { model: __ENV.MODEL, batch: 1, heads, query_length: length, key_length: length, head_dim: dim,
    dtype: 'DTYPE_FP32', q, k, v };
  const reply = client.invoke('attnd.v1.AttentionService/ComputeAttention', request, { timeout: '30s' });
  client.close();
  if (reply.status !== grpc.StatusOK) {
    const code = Object.keys(grpc).find((name) => grpc[name] === reply.status);
    console.error(`${code}: ${reply.error.message}`);
    for (const { field, expected, got } of reply.error.details) {
      console.error(`  field ${field}: expected ${expected}, got ${got}`);
    }
    exec.test.abort('the call failed');
  }
  const output = b64decode(reply.message.output);
  console.log(`first values: ${new Float32Array(output).slice(0, 4).join(' ')}`);
  console.log(`sha256: ${sha256(output, 'hex')}`);
}
