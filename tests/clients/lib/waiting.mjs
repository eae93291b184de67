// Waiting for what must happen, with a deadline that names it.

export const DEADLINE = 15_000;

/** The arguments of the emitter's next event of that name. */
export function event(emitter, name, deadline = DEADLINE) {
  return withDeadline(`no "${name}" within ${deadline} ms`, deadline, (resolve) => {
    const listener = (...args) => resolve(args);
    emitter.once(name, listener);
    return () => emitter.off(name, listener);
  });
}

/** The condition's first true value; it is looked at every 20 ms. */
export function until(what, condition, deadline = DEADLINE) {
  return withDeadline(() => `${typeof what === "function" ? what() : what}: not within ${deadline} ms`, deadline, (resolve, reject) => {
    let timer;
    const look = async () => {
      try {
        const value = await condition();
        if (value) return resolve(value);
        timer = setTimeout(look, 20);
      } catch (error) {
        reject(error);
      }
    };
    look();
    return () => clearTimeout(timer);
  });
}

/** The promise's value, unless it takes too long. */
export function within(what, promise, deadline = DEADLINE) {
  return withDeadline(`${what}: not within ${deadline} ms`, deadline, (resolve, reject) => void promise.then(resolve, reject));
}

function withDeadline(what, deadline, begin) {
  // Made here and not in the timer, so that the stack names who waited.
  const late = new Error();
  return new Promise((resolve, reject) => {
    let end;
    const timer = setTimeout(() => {
      late.message = typeof what === "function" ? what() : what;
      finish(reject)(late);
    }, deadline);
    const finish = (settle) => (value) => {
      clearTimeout(timer);
      end?.();
      settle(value);
    };
    end = begin(finish(resolve), finish(reject));
  });
}
