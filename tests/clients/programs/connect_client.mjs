// n = 2048 with connect-es: connect_client.mjs TRANSPORT URL MODEL INPUT OUTPUT. TRANSPORT is grpc (HTTP/2, as gRPC's own
// clients), grpc-web or connect (both as browsers do it, by fetch).
import fs from 'node:fs';
import { fromBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { AttentionService } from './generated/attnd/v1/attention_pb.js';
import { Dtype, ErrorDetailSchema } from './generated/attnd/v1/types_pb.js';

const [heads, length, dim] = [8, 2048, 64];
const size = heads * length * dim * 4;
const [kind, baseUrl, model, input, output] = process.argv.slice(2);
const create = { grpc: createGrpcTransport, 'grpc-web': createGrpcWebTransport, connect: createConnectTransport }[kind];
// Only connect-node has a limit, and by default it is 4 GiB.
const client = createClient(AttentionService, create({ baseUrl, useBinaryFormat: true }));

const tensors = fs.readFileSync(input);
const [q, k, v] = [0, 1, 2].map((i) => tensors.subarray(i * size, (i + 1) * size));
const request = { model, batch: 1n, heads: BigInt(heads), queryLength: BigInt(length), keyLength: BigInt(length),
  headDim: BigInt(dim), dtype: Dtype.FP32, q, k, v };
try {
  const reply = await client.computeAttention(request, { timeoutMs: 30000 });
  fs.writeFileSync(output, reply.output);
} catch (failure) {
  const error = ConnectError.from(failure);
  console.error(`${Code[error.code]}: ${error.rawMessage}`);
  // Envoy writes the name of a detail's type as a URL, which findDetails does not know.
  const bridged = error.details.filter((d) => d.type === 'type.googleapis.com/attnd.v1.ErrorDetail');
  const details = bridged.map((d) => fromBinary(ErrorDetailSchema, d.value));
  for (const { field, expected, got } of [...details, ...error.findDetails(ErrorDetailSchema)]) {
    console.error(`  field ${field}: expected ${expected}, got ${got}`);
  }
  process.exit(1);
}
