// What went wrong, as a sentence for the person who looks.

/** An error whose message is meant to be read. */
export class Problem extends Error {}

/** The sentence of a refused request: the problem document's (RFC 9457), or the status. */
export async function problemOf(response) {
  try {
    const { detail } = await response.json();
    if (detail) return new Problem(detail);
  } catch {
    // no problem document: a proxy's own page
  }
  return new Problem(`The server answered with ${response.status}: try again in a moment.`);
}

/** Any error as a sentence. */
export function sentence(error) {
  if (error instanceof Problem) return error.message;
  if (error instanceof TypeError && /fetch|network/i.test(error.message)) return "The server cannot be reached: check that it runs, then try again.";
  return `Something went wrong here (${error?.message ?? error}): reload the page and try again.`;
}

const CAMERA = {
  NotAllowedError: "The camera may not be used: allow it for this page in the browser's address bar, then try again.",
  NotFoundError: "There is no camera on this device: connect one, or open a video instead.",
  NotReadableError: "The camera is in use by another program: close that one, then try again.",
  OverconstrainedError: "The camera has no picture of this size: try another camera.",
  SecurityError: "The browser allows no camera on this page: open it over https or on localhost.",
};

/** Why there is no camera's picture. */
export function cameraProblem(error) {
  return new Problem(CAMERA[error?.name] ?? `The camera could not be started (${error?.message ?? error}): try again.`);
}
