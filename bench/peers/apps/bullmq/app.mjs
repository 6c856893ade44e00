// BullMQ on Redis: `app.mjs serve` is a worker, `many COUNT` and `rate COUNT RATE` submit (see work.py).
import { spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const path = decodeURIComponent(new URL(process.env.BENCH_REDIS_URL).pathname);
const connection = new Redis({ path, maxRetriesPerRequest: null });
const [program, ...rest] = (process.env.BENCH_COMMAND ?? "/bin/true").split(" ");
const [kind, count, rate] = process.argv.slice(2);
const first = Number(process.env.BENCH_FIRST ?? 0);
const prints = process.env.BENCH_PRINTS === "1";
const now = () => Date.now() / 1000;

// As the others do: without a pipe unless the output is asked for.
function execute() {
  return new Promise((resolve, reject) => {
    const child = spawn(program, rest, { stdio: ["ignore", prints ? "pipe" : "ignore", "inherit"] });
    let printed = "";
    child.stdout?.on("data", (data) => (printed += data));
    child.on("error", reject);
    child.on("close", (code) => (code ? reject(new Error(`exit code ${code}`)) : resolve(printed)));
  });
}

if (kind === "serve") {
  const work = async (job) => {
    const printed = await execute();
    appendFileSync(process.env.BENCH_DONE, `${job.data.index} ${printed.trim() || now()}\n`);
  };
  new Worker("bench", work, { connection, concurrency: 16 });
} else {
  const queue = new Queue("bench", { connection, defaultJobOptions: { removeOnComplete: true } });
  await queue.waitUntilReady();
  const began = now();
  const moments = [];
  if (kind === "many") {
    for (let start = 0; start < count; start += 1000) {
      const part = Array.from({ length: Math.min(1000, count - start) }, (_, n) => first + start + n);
      await queue.addBulk(part.map((index) => ({ name: "execute", data: { index } })));
    }
  } else {
    for (let index = 0; index < count; index++) {
      await sleep(Math.max(0, (began + index / rate - now()) * 1000));
      moments.push(now());
      await queue.add("execute", { index: first + index });
    }
  }
  console.log(began, ...moments);
  await queue.close();
  connection.disconnect();
}
