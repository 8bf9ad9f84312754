"""`python -I -S …/netlib/relay/__main__.py STATE_DIR LISTENING_FD LOCK_FD`: the relay process."""

import os
import sys

if os.fork():
    # The caller waits for this process only, so the relay process is nobody's zombie when it
    # ends. Forked before anything is imported: that is the caller's time.
    os._exit(0)

# -I and -S keep the environment, the user's and the site's packages out, and this one with them.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from netlib.relay.process import main

main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
