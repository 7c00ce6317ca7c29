// A web server with a handler that takes three seconds, and with what node does by itself.
const server = require("http").createServer((request, response) => {
  if (request.url === "/slow") setTimeout(() => response.end("slow"), 3000);
  else response.end(request.url);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
