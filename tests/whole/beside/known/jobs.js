// Jobs of node-cron at times of the day, in a process that serves, too.
const cron = require(process.argv[2]);
const say = (name) => (context) =>
  console.log(name, new Date(Math.round(Date.now() / 1000) * 1000).getUTCSeconds());
// By default it leaves out a run that is a second late, which a busy machine may be.
const options = { missedExecutionTolerance: 5000 };
cron.schedule("*/10 * * * * *", say("ten"), options);
cron.schedule("*/15 * * * * *", say("fifteen"), options);
require("http").createServer((request, response) => response.end("jobs"))
  .listen(Number(process.argv[3]), "127.0.0.1");
