'use strict';
// What every Node driver reports: the same shape, whatever the SDK's own idiom is.

const wanted = JSON.parse(process.argv[2]);

// The status and the errors that a call must end with.
async function refused(call, describe) {
    try {
        await call();
    } catch (error) {
        return describe(error);
    }
    throw new Error('the call was not refused');
}

function report(main) {
    main(wanted).then(
        (seen) => process.stdout.write(JSON.stringify(seen)),
        (error) => {
            console.error(error);
            if (error && error.response) console.error(error.response.text);
            process.exitCode = 1;
        },
    );
}

module.exports = { wanted, refused, report };
