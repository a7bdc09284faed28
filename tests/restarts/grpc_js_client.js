// What driver.cc does, with @grpc/grpc-js.
//   grpc_js_client.js TARGET SERVICE_CONFIG REQUEST OUTPUT_BYTES SECONDS
// The arguments are those of python_client.py. NODE_PATH names the folder that has @grpc/grpc-js.
'use strict';
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const METHOD = '/attnd.v1.AttentionService/ComputeAttention';
const DEADLINE = 60;  // seconds
const CALLERS = 8;
const PAUSE = 50;  // milliseconds

const [target, config, requestFile, outputBytes, seconds] = process.argv.slice(2);
const request = fs.readFileSync(requestFile);
const client = new grpc.Client(target, grpc.credentials.createInsecure(), {'grpc.service_config': config});
const now = () => Number(process.hrtime.bigint()) / 1e9;
const end = now() + Number(seconds);
const times = [];
const failed = {};
const words = {};
let gap = 0;
let lastSuccess = now();
let output = null;

function fail(code, message) {
  failed[code] = (failed[code] || 0) + 1;
  if (!(code in words)) words[code] = message;
}

function call(done) {
  const start = now();
  const deadline = new Date(Date.now() + DEADLINE * 1000);
  client.makeUnaryRequest(METHOD, (bytes) => bytes, (bytes) => bytes, request, new grpc.Metadata(), {deadline},
    (error, reply) => {
      const at = now();
      times.push(at - start);
      if (error) {
        fail(grpc.status[error.code] || String(error.code), error.details);
      } else {
        const got = reply.subarray(-Number(outputBytes));
        output = output || Buffer.from(got);
        if (!output.equals(got)) fail('WRONG_ANSWER', 'another output than before');
        gap = Math.max(gap, at - lastSuccess);
        lastSuccess = at;
      }
      done();
    });
}

async function caller() {
  while (now() < end) {
    await new Promise(call);
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

Promise.all(Array.from({length: CALLERS}, caller)).then(() => {
  times.sort((a, b) => a - b);
  gap = Math.max(gap, now() - lastSuccess);
  console.log(JSON.stringify({calls: times.length, failed, words, median: times[Math.floor(times.length / 2)],
    longest: times[times.length - 1], gap}));
  client.close();
});
