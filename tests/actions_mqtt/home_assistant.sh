#!/usr/bin/env bash
# Discovery against Home Assistant's own schemas: its package from PyPI in an environment of its own (Python 3.11 or 3.12), and a real Mosquitto.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${CARGO_TARGET_DIR:-target}/homeassistant
python=$folder/bin/python
# 2024.3 is the last release that runs on Python 3.11, Debian 12's.
packages=(homeassistant==2024.3.3 paho-mqtt==1.6.1)
if ! "$python" -c 'import homeassistant, paho.mqtt' 2> /dev/null; then
    echo "installing ${packages[*]} into $folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet "${packages[@]}"
fi
SPOTTER_HOMEASSISTANT=$(realpath -s "$python") cargo test --release --test actions_mqtt home_assistant -- --nocapture --test-threads 1
