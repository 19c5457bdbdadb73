'use strict';
// A receiver that verifies the way Asana's own example does: it parses the body and hashes what JSON.stringify
// makes of it, so that every byte of ours has to be as JavaScript would write it.
// Prints one line of JSON when it listens ({port}), and one for each request ({status, events}).

const crypto = require('crypto');
const http = require('http');

let secret = null;

function tell(line) {
    process.stdout.write(`${JSON.stringify(line)}\n`);
}

function answer(headers, text) {
    if (headers['x-hook-secret']) {
        secret = headers['x-hook-secret'];
        return { status: 200, headers: { 'X-Hook-Secret': secret } };
    }
    // What Express's parser does: other types leave the body empty.
    const body = headers['content-type'].startsWith('application/json') ? JSON.parse(text) : {};
    const signature = crypto.createHmac('SHA256', secret).update(JSON.stringify(body)).digest('hex');
    const claimed = Buffer.from(headers['x-hook-signature']);
    const verified = crypto.timingSafeEqual(claimed, Buffer.from(signature));
    return { status: verified ? 200 : 401, headers: {}, events: body.events };
}

const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
        const { status, headers, events } = answer(request.headers, Buffer.concat(chunks).toString('utf8'));
        response.writeHead(status, headers);
        response.end();
        tell({ status, events });
    });
});
server.listen(0, '127.0.0.1', () => tell({ port: server.address().port }));
