"""Live poses over a WebSocket, /v1/stream: landmarks or pictures in, refined poses out.

messages    what travels
hub         all streams of a replica: their frames are refined together
connection  one stream: newest frame first, in order, within limits
pictures    MediaPipe for streams that send pictures, in processes of its own
client      the same from Python
"""
