// The runtime of a Node function: fetches events from Lambda's runtime API and answers them.
//
// Run in the function's own process; it imports nothing but Node's own modules. Handlers are
// CommonJS or ECMAScript modules; they are asynchronous, or take a callback.
//
// Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes", "Define
// Lambda function handler in Node.js", "Using the Lambda context object to retrieve Node.js
// function information".

import { existsSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { format } from 'node:util';

const PREFIX = '/2018-06-01/runtime/';
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
let requestId = '';

class Fault extends Error {
  constructor(kind, message) {
    super(message);
    this.name = kind;
  }
}

function call(method, where, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { host, port, method, path: PREFIX + where, agent, headers };
    if (body !== undefined) {
      headers['Content-Type'] = 'application/json';
      headers['Content-Length'] = Buffer.byteLength(body);
    }
    const request = http.request(options, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(pieces) }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

function described(error) {
  if (error instanceof Error || (error && typeof error.message === 'string')) {
    const trace = String(error.stack ?? '').split('\n');
    return { errorType: String(error.name), errorMessage: String(error.message), trace };
  }
  return { errorType: typeof error, errorMessage: format(error), trace: [] };
}

async function postError(where, error) {
  const description = described(error);
  console.error(JSON.stringify(description));
  const kind = description.errorType.replace(/[^\x20-\x7e]/g, '?');
  await call('POST', where, JSON.stringify(description), {
    'Lambda-Runtime-Function-Error-Type': kind,
  });
}

// what is written belongs to the event that is worked on: each line with its id, as in Lambda
for (const [name, level] of [
  ['log', 'INFO'], ['info', 'INFO'], ['debug', 'DEBUG'], ['warn', 'WARN'], ['error', 'ERROR'],
]) {
  console[name] = (...values) => {
    const text = format(...values).replaceAll('\n', '\r');
    process.stdout.write(`${new Date().toISOString()}\t${requestId}\t${level}\t${text}\n`);
  };
}

function file(root, module) {
  for (const ending of ['', '.js', '.mjs', '.cjs']) {
    const found = path.resolve(root, module + ending);
    if (ending !== '' && existsSync(found)) {
      return found;
    }
  }
  throw new Fault(
    'Runtime.ImportModuleError', `Error: Cannot find module '${path.basename(module)}'`);
}

async function importModule(root, module) {
  const found = file(root, module);
  if (found.endsWith('.mjs')) {
    return import(pathToFileURL(found).href);
  }
  try {
    return createRequire(found)(found);
  } catch (error) {
    if (error?.code === 'ERR_REQUIRE_ESM' || error instanceof SyntaxError) {
      // the nearest package.json says "type": "module", or the file is one by its words
      return import(pathToFileURL(found).href);
    }
    throw error;
  }
}

async function load() {
  const root = process.env.LAMBDA_TASK_ROOT;
  const handler = process.env._HANDLER;
  const base = path.basename(handler);
  const dot = base.indexOf('.');
  if (dot < 1) {
    throw new Fault('Runtime.MalformedHandlerName', `Bad handler '${handler}'`);
  }
  const module = path.join(path.dirname(handler), base.slice(0, dot));
  let exported;
  try {
    exported = await importModule(root, module);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new Fault('Runtime.UserCodeSyntaxError', `${error.name}: ${error.message}`);
    }
    if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') {
      throw new Fault('Runtime.ImportModuleError', `Error: ${error.message}`);
    }
    throw error;
  }
  const names = base.slice(dot + 1).split('.');
  const find = (from) => names.reduce((value, name) => value?.[name], from);
  const found = find(exported) ?? find(exported?.default);
  if (typeof found !== 'function') {
    throw new Fault(
      'Runtime.HandlerNotFound', `${handler} is undefined or not exported`);
  }
  return found;
}

function context(headers, settle) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const environment = process.env;
  return {
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    functionName: environment.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: environment.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: environment.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: environment.AWS_LAMBDA_LOG_STREAM_NAME,
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
    done: (error, value) => settle(error, value),
    succeed: (value) => settle(null, value),
    fail: (error) => settle(error ?? new Error('fail() without an error')),
  };
}

function run(handler, event, headers) {
  return new Promise((resolve, reject) => {
    const settle = (error, value) => {
      if (error !== null && error !== undefined) {
        reject(error);
      } else {
        resolve(value);
      }
    };
    const returned = handler(event, context(headers, settle), settle);
    if (typeof returned?.then === 'function') {
      returned.then(resolve, reject);
    } else if (handler.length < 3) {
      // neither a promise nor a callback: nothing else can come
      resolve(returned);
    }
  });
}

function marshal(value) {
  try {
    return JSON.stringify(value === undefined ? null : value) ?? 'null';
  } catch (error) {
    throw new Fault('Runtime.MarshalError', `Unable to stringify response body: ${error.message}`);
  }
}

async function main() {
  let handler;
  try {
    handler = await load();
  } catch (error) {
    await postError('init/error', error);
    process.exit(1);
  }
  for (;;) {
    const { headers, body } = await call('GET', 'invocation/next');
    requestId = headers['lambda-runtime-aws-request-id'];
    process.env._X_AMZN_TRACE_ID = headers['lambda-runtime-trace-id'] ?? '';
    let answer;
    try {
      answer = marshal(await run(handler, JSON.parse(body.toString()), headers));
    } catch (error) {
      await postError(`invocation/${requestId}/error`, error);
      continue;
    }
    await call('POST', `invocation/${requestId}/response`, answer);
  }
}

// an error nobody catches ends the process, and is told first: as Lambda's runtime does
for (const [event, kind] of [
  ['uncaughtException', ''], ['unhandledRejection', 'Runtime.UnhandledPromiseRejection'],
]) {
  process.on(event, (error) => {
    const told = kind ? new Fault(kind, format(error?.message ?? error)) : error;
    const where = requestId ? `invocation/${requestId}/error` : 'init/error';
    agent.maxSockets = 2;
    postError(where, told).finally(() => process.exit(129));
  });
}

main();
