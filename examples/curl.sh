#!/bin/sh
# The endpoint from a shell: one pose, a video file, and who answers. ENDPOINT=http://… names another one; TOKEN=… where it wants one.
#
#     sh examples/curl.sh docs/pose.json dance.mp4
set -eu
ENDPOINT=${ENDPOINT:-http://127.0.0.1:8000}
pose=$1
video=${2:-}

ask() {
    curl --silent --show-error --fail-with-body --retry 3 ${TOKEN:+--header "Authorization: Bearer $TOKEN"} "$@"
    echo
}

ask "$ENDPOINT/healthz"
# MediaPipe's world landmarks in, 17 refined joints and the confidence in each out
ask "$ENDPOINT/v1/refine" --header 'Content-Type: application/json' --data-binary "@$pose"
# a whole video: the endpoint runs MediaPipe, too
if [ -n "$video" ]; then
    ask "$ENDPOINT/v1/refine/video" --form "video=@$video"
fi
