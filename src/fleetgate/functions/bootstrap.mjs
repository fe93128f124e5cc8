// The runtime of a Node function: fetches events from Lambda's runtime API and answers them.
//
// Run in the function's own process; it imports nothing but Node's own modules. Handlers are
// CommonJS or ECMAScript modules. What they may do depends on the runtime the function was made
// for, whichever Node runs it:
//
// * up to nodejs22.x they are asynchronous or call back. What one returns counts only if it is a
//   promise. An empty event loop ends an event that was not answered: with null, or with an error
//   if the handler is asynchronous. A callback waits for it, unless the context says otherwise.
// * from nodejs24.x on there are no callbacks, and whatever is returned is the answer.
//
// Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes", "Define
// Lambda function handler in Node.js", "Using the Lambda context object to retrieve Node.js
// function information"; AWS's runtime interface client for Node.js, of which there is one for
// each of the two.

import { existsSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { format, types } from 'node:util';

const PREFIX = '/2018-06-01/runtime/';
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const generation = Number(/nodejs(\d+)/.exec(process.env.AWS_EXECUTION_ENV ?? '')?.[1] ?? 24);
const takesCallbacks = generation < 24;
const UNREADABLE =
  'callback called with Error argument, but there was a problem while retrieving one or more of '
  + 'its message, name, and stack';
const CALLBACK_REFUSED =
  'ERROR: AWS Lambda has removed support for callback-based function handlers starting with '
  + 'Node.js 24. You need to modify this function to use a supported handler signature to use '
  + 'Node.js 24 or later. For more information see '
  + 'https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.';
const NEVER_SETTLED =
  'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly '
  + 'caused by a Promise that was never settled. For more information, see '
  + 'https://nodejs.org/docs/latest/api/process.html#exit-codes';
let requestId = '';
let whenIdle = null; // what an empty event loop brings about

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

function isError(value) {
  if (types.isNativeError(value) || value instanceof Error) {
    return true;
  }
  const members = takesCallbacks && value ? [value.name, value.message, value.stack] : [];
  return members.length > 0 && members.every((each) => each && typeof each === 'string');
}

function described(error) {
  try {
    if (isError(error)) {
      const trace = String(error.stack ?? '').split('\n');
      return { errorType: error.name, errorMessage: error.message, trace };
    }
    const errorMessage = takesCallbacks ? error.toString() : String(error);
    return { errorType: typeof error, errorMessage, trace: [] };
  } catch {
    return { errorType: 'handled', errorMessage: UNREADABLE, trace: [] };
  }
}

async function postError(where, error) {
  const description = described(error);
  console.error(JSON.stringify(description));
  const kind = String(description.errorType).replace(/[^\x20-\x7e]/g, '?');
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
  if (!takesCallbacks && found.length >= 3) {
    throw new Fault('Runtime.CallbackHandlerDeprecated', CALLBACK_REFUSED);
  }
  return found;
}

function context(headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const environment = process.env;
  return {
    functionVersion: environment.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: environment.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: environment.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: environment.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: undefined,
    identity: undefined,
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

function isNothing(value) {
  return value === undefined || value === null;
}

// up to nodejs22.x: what comes first ends the event, and nothing that comes later counts
function runWithCallbacks(handler, event, headers) {
  return new Promise((resolve, reject) => {
    let waits = true;
    let finished = false;
    const settle = (error, value) => (isNothing(error) ? resolve(value) : reject(error));
    const first = (act) => (...values) => {
      if (!finished) {
        finished = true;
        whenIdle = null;
        act(...values);
      }
    };
    const done = first(settle);
    const fail = (error) => done(isNothing(error) ? 'handled' : error);
    const callback = first((error, value) => {
      if (waits && isNothing(error)) {
        whenIdle = () => resolve(value);
      } else {
        settle(error, value);
      }
    });
    whenIdle = first(() => {
      if (handler.constructor?.name === 'AsyncFunction') {
        reject(new Fault('Runtime.NodeJsExit', NEVER_SETTLED));
      } else {
        resolve(null);
      }
    });
    const given = Object.assign(context(headers), {
      done, fail, succeed: (value) => done(null, value),
    });
    Object.defineProperty(given, 'callbackWaitsForEmptyEventLoop', {
      enumerable: true, get: () => waits, set: (value) => { waits = value; },
    });
    try {
      const returned = handler(event, given, callback);
      if (typeof returned?.then === 'function') {
        returned.then(given.succeed, fail).catch(fail);
      }
    } catch (error) {
      callback(error);
    }
  });
}

async function run(handler, event, headers) {
  return takesCallbacks
    ? runWithCallbacks(handler, event, headers)
    : handler(event, context(headers));
}

function marshal(value) {
  try {
    return JSON.stringify(value === undefined ? null : value) ?? 'null';
  } catch {
    const kind = takesCallbacks ? 'Error' : 'Runtime.JSONStringifyError';
    throw new Fault(kind, 'Unable to stringify response body');
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

// An error nobody catches ends the process, and up to nodejs22.x it is told first. From then on
// Node itself writes it and exits.
async function tellAndExit(error, code) {
  const where = requestId ? `invocation/${requestId}/error` : 'init/error';
  agent.maxSockets = 2;
  try {
    await postError(where, error);
  } finally {
    process.exit(code);
  }
}

if (takesCallbacks) {
  process.on('uncaughtException', (error) => tellAndExit(error, 129));
  process.on('unhandledRejection', (reason) => {
    const message = reason === undefined ? '' : String(reason);
    tellAndExit(new Fault('Runtime.UnhandledPromiseRejection', message), 128);
  });
  process.on('beforeExit', () => {
    if (whenIdle !== null) {
      const act = whenIdle;
      whenIdle = null;
      setImmediate(act);
    }
  });
}

main();
