'use strict';
// Verifies one delivery with the library of Standard Webhooks; it throws when the delivery is not genuine.

const { Webhook } = require('standardwebhooks');

const { secret, headers, body } = JSON.parse(process.argv[2]);
process.stdout.write(JSON.stringify(new Webhook(secret).verify(body, headers)));
