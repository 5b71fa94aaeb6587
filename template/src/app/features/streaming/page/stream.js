// A query as a stream of events: `{type, content, data}`, ended by `complete`.

/** Why there is no answer: an RFC 9457 problem of the service, or what the browser knows. */
export class Failure extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail);
    this.problem = problem;
    /** Seconds, or null. */
    this.retryAfter = retryAfter ?? problem.resets_in ?? null;
  }
}

const BROKEN = {
  title: "The stream broke off",
  detail: "The connection ended before the answer was complete.",
};
const UNREACHABLE = {
  title: "No connection",
  detail: "The service cannot be reached.",
};

/**
 * Ask, and yield each event as it comes.
 * @throws {Failure} unless `signal` was aborted, which throws what `fetch` throws.
 */
export async function* ask(body, key, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const request = { method: "POST", headers, body: JSON.stringify(body), signal };
  const response = await orFailure(
    fetch("api/query/stream", { ...request, cache: "no-store", credentials: "omit" }),
    UNREACHABLE,
    signal,
  );
  const type = response.headers.get("Content-Type") ?? "";
  if (!response.ok || !type.startsWith("text/event-stream")) throw await refusal(response);

  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await orFailure(reader.read(), BROKEN, signal);
      if (done) throw new Failure(BROKEN);
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      // The service writes each event as one line; the others are comments and separators.
      for (const line of lines.filter((each) => each.startsWith("data: "))) {
        const event = JSON.parse(line.slice("data: ".length));
        if (event.type === "error") throw new Failure(event.data);
        yield event;
        if (event.type === "complete") return;
      }
    }
  } finally {
    // Whatever has ended the reading, nobody shall go on writing.
    reader.cancel().catch(() => {});
  }
}

async function orFailure(promise, problem, signal) {
  try {
    return await promise;
  } catch (error) {
    throw signal.aborted ? error : new Failure(problem);
  }
}

async function refusal(response) {
  const seconds = Number.parseInt(response.headers.get("Retry-After"), 10);
  let problem;
  try {
    problem = await response.json();
  } catch {
    // Something in front of the service has answered.
  }
  problem = problem?.detail ? problem : {
    status: response.status,
    title: `HTTP ${response.status}`,
    detail: "Something between this page and the service has answered.",
  };
  return new Failure(problem, Number.isNaN(seconds) ? null : seconds);
}
