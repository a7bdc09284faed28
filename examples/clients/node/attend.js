// Computes attention with grpc-js: attend.js ADDRESS MODEL INPUT OUTPUT (see the README one folder up).
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [heads, length, dim] = [8, 2048, 64];
const size = heads * length * dim * 4;
const proto = path.join(__dirname, '../../../proto');
const definition = loader.loadSync('attnd/v1/attention.proto', { includeDirs: [proto], keepCase: true });
const google = loader.fromJSON({ nested: { google: { nested: { Status: { fields: {
  details: { rule: 'repeated', type: 'Any', id: 3 } } }, Any: { fields: {
  type_url: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } } } } } }, { keepCase: true });

const [address, model, input, output] = process.argv.slice(2);
const tensors = fs.readFileSync(input);
const [q, k, v] = [0, 1, 2].map((i) => tensors.subarray(i * size, (i + 1) * size));
// The reply is 89 bytes over the 4 MiB that grpc-js receives by default.
const client = new (grpc.loadPackageDefinition(definition).attnd.v1.AttentionService)(
  address, grpc.credentials.createInsecure(), { 'grpc.max_receive_message_length': 64 << 20 });
const request = { model, batch: 1, heads, query_length: length, key_length: length, head_dim: dim, dtype: 'DTYPE_FP32', q, k, v };
client.ComputeAttention(request, { deadline: Date.now() + 30000 }, (error, reply) => {
  client.close();
  if (!error) return fs.writeFileSync(output, reply.output);
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  for (const status of error.metadata.get('grpc-status-details-bin')) {
    for (const any of google['google.Status'].deserialize(status).details) {
      const { field, expected, got } = definition['attnd.v1.ErrorDetail'].deserialize(any.value);
      console.error(`  field ${field}: expected ${expected}, got ${got}`);
    }
  }
  process.exitCode = 1;
});
