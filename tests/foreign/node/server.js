// An ordinary grpc-js server of demo.v1.Echo/Echo with the library's defaults.
'use strict';

const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');

const milliseconds = { type: 'string', default: '0' };
const { values } = parseArgs({
  options: { 'max-connection-age': milliseconds, 'max-connection-idle': milliseconds, delay: milliseconds },
});
const [age, idle, delay] = ['max-connection-age', 'max-connection-idle', 'delay'].map((name) => Number(values[name]));

const options = {};
if (age > 0) {
  options['grpc.max_connection_age_ms'] = age;
  options['grpc.max_connection_age_grace_ms'] = 1000;
}
if (idle > 0) {
  options['grpc.max_connection_idle_ms'] = idle;
}

const asItIs = (bytes) => bytes;
const server = new grpc.Server(options);
server.addService(
  {
    Echo: {
      path: '/demo.v1.Echo/Echo',
      requestStream: false,
      responseStream: false,
      requestSerialize: asItIs,
      requestDeserialize: asItIs,
      responseSerialize: asItIs,
      responseDeserialize: asItIs,
    },
  },
  { Echo: (call, answer) => setTimeout(() => answer(null, call.request), delay) },
);

server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening 127.0.0.1:${port}`);
});
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    server.forceShutdown();
    process.exit(0);
  });
}
